"""The reject threshold against a plain search, its promise by simulation, and the curve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from finetune.evaluate.intervals import lower_bounds
from finetune.evaluate.rejection import choose_reject_threshold, coverage_curve

# Few values, so that many are equal.
ANSWERS = st.lists(
    st.tuples(st.integers(1, 30).map(lambda n: n / 32), st.booleans()), min_size=1, max_size=120
)


def arrays(answers):
    confidence, correct = zip(*answers, strict=True)
    return np.array(confidence, np.float32), np.array(correct)


def best_by_search(confidence, correct, precision):
    """The most images that can be answered: every threshold tried, one after another."""
    numbers = [0]
    for threshold in set(confidence.tolist()):
        answered = confidence >= threshold
        hits, total = int(correct[answered].sum()), int(answered.sum())
        if hits and beta.ppf(0.05, hits, total - hits + 1) >= precision:
            numbers.append(total)
    return max(numbers)


@given(st.integers(1, 400), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_lower_bounds_are_scipys_exact_ones(n, fraction):
    hits = round(fraction * n)
    expected = beta.ppf(0.05, hits, n - hits + 1) if hits else 0.0
    assert lower_bounds(np.array([hits]), np.array([n]))[0] == pytest.approx(expected, abs=1e-9)


@given(ANSWERS, st.sampled_from([0.3, 0.5, 0.8, 0.9]))
@settings(max_examples=200, deadline=None)
def test_as_many_are_answered_as_by_trying_every_threshold(answers, precision):
    confidence, correct = arrays(answers)
    chosen = choose_reject_threshold(confidence, correct, precision=precision)
    answered = 0
    if chosen.value is not None:
        answered = int((confidence >= np.float32(chosen.value)).sum())
    assert answered == best_by_search(confidence, correct, precision)


def test_the_threshold_lies_half_way_to_the_next_lower_probability():
    confidence = np.repeat(np.array([0.9, 0.5], np.float32), 50)
    chosen = choose_reject_threshold(confidence, confidence > 0.6, precision=0.9)
    assert chosen.value == pytest.approx(0.7)
    assert chosen.reason == (
        "50 of 100 validation images withheld: of the rest 50 of 50 answers are right, which "
        "shows 0.9"
    )


def test_neighbouring_floats_are_still_told_apart():
    upper = np.float32(0.75)
    lower = np.nextafter(upper, np.float32(0))
    confidence = np.repeat(np.array([upper, lower]), 50)
    chosen = choose_reject_threshold(confidence, confidence == upper, precision=0.9)
    assert (confidence >= np.float32(chosen.value)).sum() == 50


def test_where_all_may_be_answered_nothing_is_withheld():
    chosen = choose_reject_threshold(np.full(59, 0.6, np.float32), np.ones(59, bool), precision=0.9)
    assert chosen.value == 0.0
    assert chosen.reason.startswith("nothing need be withheld: 59 of 59 answers are right")


def test_too_few_images_say_what_they_would_show():
    # 0.05 ** (1 / 20): the exact bound of 20 right answers of 20.
    chosen = choose_reject_threshold(np.full(20, 0.9, np.float32), np.ones(20, bool), precision=0.9)
    assert chosen.value is None
    assert chosen.reason == (
        "20 validation images are too few to show a precision of 0.9: if all were right, they "
        f"would show {0.05 ** (1 / 20):.3f}"
    )


def test_a_precision_that_is_never_shown_says_so():
    confidence = np.linspace(0.3, 0.9, 200, dtype=np.float32)
    chosen = choose_reject_threshold(confidence, np.arange(200) % 2 == 0, precision=0.95)
    assert chosen.value is None
    assert chosen.reason.startswith("no threshold shows a precision of 0.95 on 200 validation")


def test_without_images_there_is_no_threshold():
    chosen = choose_reject_threshold(np.empty(0, np.float32), np.empty(0, bool), precision=0.9)
    assert chosen.value is None


@given(ANSWERS)
@settings(max_examples=100, deadline=None)
def test_the_curve_has_the_accuracy_of_what_its_thresholds_answer(answers):
    confidence, correct = arrays(answers)
    points = coverage_curve(confidence, correct)
    assert points[-1].coverage == 1.0
    assert 1 <= len(points) <= 20
    for point in points:
        answered = confidence >= np.float32(point.threshold)
        assert point.coverage == pytest.approx(answered.mean())
        assert point.accuracy == pytest.approx(correct[answered].mean())


def test_the_curve_of_many_images_has_a_point_every_five_percent():
    confidence = np.linspace(0.01, 0.99, 1_000, dtype=np.float32)
    points = coverage_curve(confidence, np.ones(1_000, bool))
    assert [point.coverage for point in points] == pytest.approx(np.arange(1, 21) / 20)


@pytest.mark.slow
def test_the_promise_is_kept_where_the_precision_seen_would_break_it():
    generator = np.random.default_rng(0)
    everyone = generator.beta(6, 0.5, 200_000)
    broken = {"chosen": [], "seen": []}
    for _ in range(400):
        confidence = generator.beta(6, 0.5, 600).astype(np.float32)
        correct = generator.random(600) < confidence
        order = np.argsort(-confidence)
        seen = np.cumsum(correct[order]) / np.arange(1, 601)
        by_seen = confidence[order][np.flatnonzero(seen >= 0.95)[-1]]
        chosen = choose_reject_threshold(confidence, correct, precision=0.95).value
        broken["seen"].append(everyone[everyone >= by_seen].mean() < 0.95)
        if chosen is not None:
            broken["chosen"].append(everyone[everyone >= chosen].mean() < 0.95)
    assert len(broken["chosen"]) > 350
    assert np.mean(broken["chosen"]) < 0.1  # 0.05 for one threshold; the last of many is chosen
    assert np.mean(broken["seen"]) > 0.4
