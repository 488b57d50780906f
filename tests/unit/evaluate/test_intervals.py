"""Intervals: published values, defining equations, and the share that holds the truth."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from finetune.evaluate.intervals import f1_interval, macro_f1_interval, wilson

Z = 1.959963984540054  # the standard normal's 97.5 % point


def share_of_wilson_intervals_that_hold(truth, n, num_draws=2_000):
    draws = np.random.default_rng(0).binomial(n, truth, size=num_draws).tolist()
    ends = [wilson(hits, n) for hits in draws]
    return np.mean([low <= truth <= high for low, high in ends])


def holds(ends, truth):
    return (ends[0] <= truth) & (truth <= ends[1])


def confusion_of(labels, predicted, num_classes):
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    return confusion


def macro_f1_of(confusion):
    support, taken = confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = support + taken > 0
    return (2 * confusion.diagonal() / np.where(occurs, support + taken, 1))[occurs].mean()


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    [
        # Newcombe 1998, Statistics in Medicine 17, table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0000, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_gives_the_published_values(successes, n, expected):
    assert wilson(successes, n) == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 10_000), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_the_ends_of_wilson_solve_its_defining_equation(n, fraction):
    successes = round(fraction * n)
    for end in wilson(successes, n):
        assert (successes / n - end) ** 2 == pytest.approx(Z**2 * end * (1 - end) / n, abs=1e-12)


@given(st.integers(1, 10_000), st.floats(0, 1))
@settings(max_examples=200, deadline=None)
def test_wilson_holds_the_share_and_stays_within_0_and_1(n, fraction):
    successes = round(fraction * n)
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high


def test_wilson_ends_exactly_at_0_and_1():
    assert wilson(0, 7)[0] == 0.0
    assert wilson(7, 7)[1] == 1.0


def test_a_higher_level_widens_wilson():
    # At a share of one half the half-width is z / (2 sqrt(n + z^2)); z is 2.5758 at 99 %.
    half_width = 2.5758 / (2 * math.sqrt(10 + 2.5758**2))
    expected = (0.5 - half_width, 0.5 + half_width)
    assert wilson(5, 10, level=0.99) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_what_is_no_proportion(successes, n):
    with pytest.raises(ValueError, match="a proportion needs 0 <= successes <= n and n >= 1"):
        wilson(successes, n)


# Each share is itself a random figure: 2,000 draws leave it within 0.01 of the truth.
@pytest.mark.parametrize(("truth", "n"), [(0.5, 40), (0.8, 60), (0.9, 120), (0.93, 300)])
def test_wilson_holds_the_truth_in_95_of_100_cases(truth, n):
    assert 0.93 <= share_of_wilson_intervals_that_hold(truth, n) <= 0.97


def test_the_interval_of_f1_holds_f1():
    # 8 of 10 images found, 2 others taken for the class: F1 = 16 / 20, union 12.
    low, high = f1_interval(8, 12)
    assert low < 16 / 20 < high
    assert (low, high) == pytest.approx([2 * end / (1 + end) for end in wilson(8, 12)])


def test_the_interval_of_f1_holds_its_level_where_the_bootstrap_does_not():
    # Five classes of ten images, each 98 % right: most classes show no error at all.
    generator = np.random.default_rng(0)
    rows, truth = np.full((5, 5), 0.005) + np.eye(5) * 0.975, 0.98
    by_wilson, by_bootstrap = [], []
    for _ in range(200):
        confusion = generator.multinomial(10, rows)
        hits, taken = confusion.diagonal(), confusion.sum(axis=0)
        pairs = zip(hits.tolist(), (10 + taken - hits).tolist(), strict=True)
        ends = np.array([f1_interval(*pair) for pair in pairs]).T
        by_wilson.append(holds(ends, truth))
        drawn = generator.multinomial(10, confusion / 10, size=(200, 5))
        f1 = 2 * np.diagonal(drawn, axis1=1, axis2=2) / (10 + drawn.sum(axis=1))
        by_bootstrap.append(holds(np.quantile(f1, [0.025, 0.975], axis=0), truth))
    assert np.mean(by_wilson) >= 0.93
    assert np.mean(by_bootstrap) < 0.5


def test_macro_f1_has_an_interval_around_it():
    labels = np.repeat([0, 1, 2], 40)
    predicted = np.where(np.arange(120) % 8, labels, (labels + 1) % 3)
    low, high = macro_f1_interval(confusion_of(labels, predicted, 3))
    assert low < f1_score(labels, predicted, average="macro") < high
    assert 0.05 < high - low < 0.2


@pytest.mark.slow
def test_macro_f1_holds_the_truth_in_95_of_100_cases():
    generator = np.random.default_rng(0)
    rows = np.full((3, 3), 0.08) + np.eye(3) * 0.76  # every class is right in 84 %
    ends = [
        macro_f1_interval(generator.multinomial(60, rows), num_resamples=400) for _ in range(1_000)
    ]
    share = np.mean([low <= 0.84 <= high for low, high in ends])
    assert 0.93 <= share <= 0.97


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    confusion = np.array([[30, 5], [4, 26]])
    first = macro_f1_interval(confusion, seed=1)
    assert macro_f1_interval(confusion, seed=1) == first
    assert macro_f1_interval(confusion, seed=2) != first


def test_resampling_leaves_numpys_global_generator_alone():
    before = np.random.get_state()[1].copy()
    macro_f1_interval(np.array([[30, 5], [4, 26]]))
    assert np.array_equal(np.random.get_state()[1], before)


def test_macro_f1_has_no_interval_where_there_is_no_error_to_resample():
    assert macro_f1_interval(np.diag([5, 9])) is None
    assert macro_f1_interval(np.zeros((2, 2), np.int64)) is None


@pytest.mark.parametrize("rows", [[[0, 5], [4, 0]], [[0, 0], [1, 0]]])
def test_macro_f1_has_no_interval_where_nothing_is_right(rows):
    assert macro_f1_interval(np.array(rows)) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_classes", "size", "least"), [(20, 5, 0.93), (30, 2, 0.85), (100, 1, 0.8)]
)
def test_macro_f1_holds_the_truth_for_classes_of_few_images_nearly_as_often(
    num_classes, size, least
):
    # Test parts that were drawn: of a class there are `size` images on average.
    generator = np.random.default_rng(0)
    chances = np.full((num_classes, num_classes), 0.2 / (num_classes - 1))
    np.fill_diagonal(chances, 0.8)
    cells = (chances / num_classes).ravel()
    drawn = generator.multinomial(num_classes * size, cells, size=600)
    confusions = drawn.reshape(-1, num_classes, num_classes)
    macro_f1 = [macro_f1_of(confusion) for confusion in confusions]
    truth = np.mean(macro_f1)  # what such a test part has on average
    ends = np.array([macro_f1_interval(one, num_resamples=400) for one in confusions[:300]])
    assert least <= np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) <= 0.99


def test_one_class_of_two_images_is_not_all_the_doubt_there_is():
    # 99 classes of one image, 80 of them right, and one of two, half right.
    labels = np.array([*range(99), 99, 99])
    predicted = labels.copy()
    predicted[80:99] = (labels[80:99] + 1) % 99
    predicted[100] = 0
    low, high = macro_f1_interval(confusion_of(labels, predicted, 100))
    assert high - low > 0.1  # as Wilson's interval of the accuracy, 81 of 101


def test_a_class_that_never_occurs_does_not_lower_the_interval():
    small = np.array([[30, 5], [4, 26]])
    wide = np.pad(small, (0, 1))
    assert macro_f1_interval(wide) == macro_f1_interval(small)


def test_drawing_counts_agrees_with_drawing_images():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    predicted = np.where(generator.random(100) < 0.8, labels, generator.integers(0, 3, 100))
    by_counts = macro_f1_interval(confusion_of(labels, predicted, 3), num_resamples=4_000)
    draws = [generator.choice(100, 100) for _ in range(400)]
    values = [f1_score(labels[rows], predicted[rows], average="macro") for rows in draws]
    # Of 400 resamples the ends of an interval 0.15 wide stray by about 0.01.
    assert by_counts == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.02)


def test_a_thousand_resamples_of_ten_thousand_images_take_about_a_second():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 100, 10_000)
    predicted = np.where(generator.random(10_000) < 0.8, labels, generator.integers(0, 100, 10_000))
    confusion = confusion_of(labels, predicted, 100)
    start = time.process_time()
    macro_f1_interval(confusion)
    assert time.process_time() - start < 1.5  # 0.12 s on a core of its own
