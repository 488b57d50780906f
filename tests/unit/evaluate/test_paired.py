"""Two models on the same images: a second opinion, defining properties, and simulations."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from finetune.evaluate.paired import (
    holm,
    macro_f1_difference_interval,
    mcnemar,
    mcnemar_of_groups,
    newcombe,
)

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


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=200))
@settings(max_examples=100, deadline=None)
def test_groups_of_one_image_are_tested_as_images(signs):
    expected = mcnemar(signs.count(-1), signs.count(1))
    found = mcnemar_of_groups(np.array(signs, dtype=np.int64))
    assert found == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.integers(-4, 4), max_size=10))
@settings(max_examples=100, deadline=None)
def test_the_test_of_groups_counts_all_signs(differences):
    signs = np.array(list(product([-1, 1], repeat=len(differences))))
    sums = np.abs(signs @ np.array(differences, dtype=np.int64))
    expected = np.mean(sums >= abs(sum(differences)))
    found = mcnemar_of_groups(np.array(differences, dtype=np.int64))
    assert found == pytest.approx(expected, abs=1e-12)


def test_one_burst_is_no_evidence():
    assert mcnemar(0, 30) < 1e-8
    assert mcnemar_of_groups(np.array([30])) == 1.0


def test_the_bootstrap_holds_the_difference():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    first = np.where(generator.random(180) < 0.7, labels, (labels + 1) % 3)
    second = np.where(generator.random(180) < 0.9, labels, (labels + 2) % 3)
    low, high = macro_f1_difference_interval((first, second), labels, num_classes=3)
    macro_f1 = f1_score(labels, second, average="macro") - f1_score(labels, first, average="macro")
    assert low < macro_f1 < high < low + 0.25


def test_drawing_kinds_of_images_agrees_with_drawing_images():
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], [40, 25, 15])
    first = np.where(generator.random(80) < 0.8, labels, generator.integers(0, 3, 80))
    second = np.where(generator.random(80) < 0.7, first, generator.integers(0, 3, 80))
    found = macro_f1_difference_interval(
        (first, second), labels, num_classes=3, num_resamples=4_000
    )
    values = []
    for _ in range(400):
        rows = generator.choice(80, 80)
        scores = [f1_score(labels[rows], said[rows], average="macro") for said in (first, second)]
        values.append(scores[1] - scores[0])
    # Of 400 resamples the ends of an interval 0.2 wide stray by about 0.012.
    assert found == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.03)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    labels = np.repeat([0, 1], 30)
    answers = np.roll(labels, 3), np.roll(labels, 5)
    once = macro_f1_difference_interval(answers, labels, num_classes=2, seed=1)
    assert macro_f1_difference_interval(answers, labels, num_classes=2, seed=1) == once
    assert macro_f1_difference_interval(answers, labels, num_classes=2, seed=2) != once


def test_models_that_answer_alike_have_no_interval():
    labels = np.array([0, 0, 1, 1, 1, 2, 2])
    first, second = np.array([0, 1, 1, 1, 1, 2, 2]), np.array([0, 2, 1, 1, 1, 2, 2])
    assert macro_f1_difference_interval((first, first), labels, num_classes=3) is None
    assert macro_f1_difference_interval((first, second), labels, num_classes=3) is not None


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
        low, high = macro_f1_difference_interval(
            (first, second), labels, num_classes=4, num_resamples=400
        )
        # By symmetry of the classes macro F1 has the truth of accuracy, up to 1 / (N / K).
        held.append(low <= gain <= high)
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.slow
def test_newcombe_holds_the_truth_for_classes_of_ten_to_fifty_images():
    generator = np.random.default_rng(0)
    for size in (10, 20, 50):
        draws = generator.multinomial(size, [0.75, 0.05, 0.12, 0.08], size=2_000)
        ends = np.array([newcombe(tuple(row)) for row in draws.tolist()])
        share = np.mean((ends[:, 0] <= 0.07) & (ends[:, 1] >= 0.07))
        assert share >= 0.94  # never below its level; with ten images above it
