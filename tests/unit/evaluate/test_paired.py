"""Two models on the same images: a second opinion, defining properties, and simulations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from finetune.evaluate.paired import bootstrap_differences, holm, mcnemar, newcombe

COUNTS = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


def draw_answers(generator, rows, labels):
    """Draw (N,) answers, each from the row of its label."""
    edges = rows.cumsum(axis=1)[labels]
    return (generator.random(len(labels))[:, None] > edges).sum(axis=1)


@given(st.integers(0, 400), st.integers(0, 400))
@settings(max_examples=100, deadline=None)
def test_statsmodels_gives_the_same_exact_p_value(only_first, only_second):
    from statsmodels.stats.contingency_tables import mcnemar as second_opinion

    table = [[7, only_first], [only_second, 3]]
    expected = min(1.0, second_opinion(table, exact=True).pvalue)
    assert mcnemar(only_first, only_second) == pytest.approx(expected, abs=1e-9)


def test_without_an_image_that_one_alone_gets_right_there_is_nothing_to_test():
    assert mcnemar(0, 0) == 1.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.5))
@settings(max_examples=100, deadline=None)
def test_holm_rejects_what_its_steps_reject(values, level):
    # Holm's procedure as he wrote it: from the smallest on, until one is above level / tests left.
    rejected = set()
    for left, place in zip(range(len(values), 0, -1), np.argsort(values), strict=True):
        if values[place] * left >= level:
            break
        rejected.add(int(place))
    assert {place for place, value in enumerate(holm(values)) if value < level} == rejected


def test_holm_of_no_tests_is_nothing():
    assert holm([]) == ()


@given(COUNTS)
@settings(max_examples=200, deadline=None)
def test_newcombe_holds_the_difference_and_stays_within_its_range(counts):
    _, only_first, only_second, _ = counts
    low, high = newcombe(counts)
    assert -1 <= low <= (only_second - only_first) / sum(counts) <= high <= 1
    assert low < high


@given(COUNTS)
@settings(max_examples=100, deadline=None)
def test_swapping_the_models_swaps_the_ends_of_newcombe(counts):
    both, only_first, only_second, neither = counts
    low, high = newcombe((both, only_second, only_first, neither))
    assert (-high, -low) == pytest.approx(newcombe(counts), abs=1e-12)


def test_the_bootstrap_holds_both_differences():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    first = np.where(generator.random(180) < 0.7, labels, (labels + 1) % 3)
    second = np.where(generator.random(180) < 0.9, labels, (labels + 2) % 3)
    found = bootstrap_differences((first, second), labels, num_classes=3)
    accuracy = accuracy_score(labels, second) - accuracy_score(labels, first)
    macro_f1 = f1_score(labels, second, average="macro") - f1_score(labels, first, average="macro")
    assert found.accuracy[0] < accuracy < found.accuracy[1]
    assert found.macro_f1[0] < macro_f1 < found.macro_f1[1]
    assert found.accuracy[1] - found.accuracy[0] < 0.2


def test_drawing_pairs_of_answers_agrees_with_drawing_images():
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [40, 25, 15])
    first = np.where(generator.random(80) < 0.8, labels, generator.integers(0, 3, 80))
    second = np.where(generator.random(80) < 0.7, first, generator.integers(0, 3, 80))
    found = bootstrap_differences((first, second), labels, num_classes=3, num_resamples=4_000)
    strata = [np.flatnonzero(labels == label) for label in range(3)]
    values = []
    for _ in range(400):
        rows = np.concatenate([generator.choice(stratum, len(stratum)) for stratum in strata])
        values.append(np.mean(second[rows] == labels[rows]) - np.mean(first[rows] == labels[rows]))
    # Of 400 resamples the ends of an interval 0.2 wide stray by about 0.012.
    assert found.accuracy == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.03)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    labels = np.repeat([0, 1], 30)
    first, second = np.roll(labels, 3), np.roll(labels, 5)
    once = bootstrap_differences((first, second), labels, num_classes=2, seed=1)
    assert bootstrap_differences((first, second), labels, num_classes=2, seed=1) == once
    assert bootstrap_differences((first, second), labels, num_classes=2, seed=2) != once


def test_models_right_on_the_same_images_have_no_interval_of_their_accuracies():
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    first, second = np.array([0, 1, 1, 1, 1, 2, 2]), np.array([0, 2, 1, 1, 1, 2, 2])
    found = bootstrap_differences((first, second), labels, num_classes=3)
    assert found.accuracy is None
    assert found.macro_f1 is not None
    assert bootstrap_differences((first, first), labels, num_classes=3).macro_f1 is None


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.0, 0.05])
def test_the_intervals_of_a_difference_hold_the_truth_in_95_of_100_cases(gain):
    # Half of the images are answered by both alike: two runs of one recipe err alike.
    num_sets, size, num_classes = 1_000, 120, 4
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(num_classes), size)
    rows = np.full((num_classes, num_classes), 0.05) + np.eye(num_classes) * 0.8
    better = rows.copy()
    np.fill_diagonal(better, 0.85 + gain)
    better[~np.eye(num_classes, dtype=bool)] = (0.15 - gain) / (num_classes - 1)
    held = []
    for _ in range(num_sets):
        first, second = (
            draw_answers(generator, rows, labels),
            draw_answers(generator, better, labels),
        )
        shared = np.tile(np.arange(size) < (size // 2 if gain == 0 else 0), num_classes)
        second = np.where(shared, first, second)
        found = bootstrap_differences((first, second), labels, num_classes=4, num_resamples=400)
        # By symmetry of the classes macro F1 and accuracy have the same truth, up to 1 / (N / K).
        held.append([low <= gain <= high for low, high in (found.accuracy, found.macro_f1)])
    shares = np.mean(held, axis=0)
    assert ((shares >= 0.93) & (shares <= 0.97)).all(), shares


@pytest.mark.slow
def test_newcombe_holds_the_truth_for_classes_of_ten_to_fifty_images():
    generator = np.random.default_rng(0)
    for size in (10, 20, 50):
        draws = generator.multinomial(size, [0.75, 0.05, 0.12, 0.08], size=2_000)
        ends = np.array([newcombe(tuple(row)) for row in draws.tolist()])
        share = np.mean((ends[:, 0] <= 0.07) & (ends[:, 1] >= 0.07))
        assert share >= 0.94  # never below its level; with ten images above it


def test_a_model_that_says_one_class_against_one_that_is_always_right_cannot_be_resampled():
    labels = np.repeat([0, 1], 50)
    found = bootstrap_differences((np.zeros(100, int), labels), labels, num_classes=2)
    assert (found.accuracy, found.macro_f1) == (None, None)
