"""Reliability: scikit-learn's curve, the metric's error, and an interval that holds the truth."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from finetune.components.metrics import METRICS, NUM_BINS
from finetune.evaluate.reliability import calibration_error_interval, reliability

ANSWERS = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


def arrays(answers):
    confidence, correct = zip(*answers, strict=True)
    return np.array(confidence, np.float32), np.array(correct)


def error_of(confidence, correct):
    """The expected calibration error, bin by bin in a plain loop."""
    total = 0.0
    confidence = confidence.astype(np.float64)  # NumPy rounds the edges to float32 otherwise
    for number in range(NUM_BINS):
        inside = (confidence > number / NUM_BINS) & (confidence <= (number + 1) / NUM_BINS)
        if number == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return total


def draw(generator, num_images, over):
    """Confidences, and answers that are right less often by a share of what is above chance."""
    confidence = generator.beta(6, 1.2, num_images) * 0.75 + 0.25
    return confidence, generator.random(num_images) < confidence - over * (confidence - 0.25)


@given(ANSWERS)
@settings(max_examples=100, deadline=None)
def test_the_bins_are_scikit_learns_calibration_curve(answers):
    confidence, correct = arrays(answers)
    wide = confidence.astype(np.float64)
    accuracy, mean = calibration_curve(correct, wide, n_bins=NUM_BINS)
    filled = [row for row in reliability(confidence, correct) if row.num_samples]
    assert [row.accuracy for row in filled] == pytest.approx(accuracy.tolist())
    assert [row.confidence for row in filled] == pytest.approx(mean.tolist())


@given(ANSWERS)
@settings(max_examples=100, deadline=None)
def test_every_image_is_in_one_bin_and_an_empty_bin_has_no_figure(answers):
    rows = reliability(*arrays(answers))
    assert len(rows) == NUM_BINS
    assert sum(row.num_samples for row in rows) == len(answers)
    assert all((row.accuracy is None) == (row.num_samples == 0) for row in rows)
    assert (rows[0].low, rows[-1].high) == (0.0, 1.0)


def test_the_bins_give_the_metric():
    confidence, correct = draw(np.random.default_rng(0), 300, 0.2)
    rows = reliability(confidence, correct)
    by_bins = sum(
        row.num_samples * abs(row.accuracy - row.confidence) for row in rows if row.num_samples
    )
    probs = np.column_stack([confidence, 1 - confidence])
    labels = np.where(correct, probs.argmax(axis=1), 1 - probs.argmax(axis=1))
    sure = probs.max(axis=1)
    assert by_bins / 300 == pytest.approx(error_of(confidence, correct))
    assert METRICS["expected_calibration_error"](probs, labels) == pytest.approx(
        error_of(sure, probs.argmax(axis=1) == labels)
    )


@given(ANSWERS, st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_the_figure(answers, seed):
    confidence, correct = arrays(answers)
    found = calibration_error_interval(confidence, correct, num_resamples=50, seed=seed)
    if len(answers) < 2:
        assert found is None
    else:
        low, high = found
        assert 0 <= low <= error_of(confidence, correct) + 1e-6
        assert error_of(confidence, correct) - 1e-6 <= high <= 1


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    answers = draw(np.random.default_rng(0), 80, 0.2)
    first = calibration_error_interval(*answers, seed=1)
    assert calibration_error_interval(*answers, seed=1) == first
    assert calibration_error_interval(*answers, seed=2) != first


def test_many_images_are_drawn_some_at_a_time_with_a_like_result(monkeypatch):
    answers = draw(np.random.default_rng(0), 400, 0.2)
    whole = calibration_error_interval(*answers)
    monkeypatch.setattr("finetune.evaluate.reliability._NUMBERS_AT_ONCE", 10_000)
    # Other draws: a thousand leave the ends within a tenth of the interval.
    assert calibration_error_interval(*answers) == pytest.approx(whole, abs=0.01)


def test_the_interval_of_an_honest_model_begins_at_0_and_that_of_another_above():
    generator = np.random.default_rng(0)
    assert calibration_error_interval(*draw(generator, 500, 0.0))[0] == 0.0
    assert calibration_error_interval(*draw(generator, 500, 0.3))[0] > 0.1


def test_a_thousand_resamples_of_ten_thousand_images_take_about_a_second():
    answers = draw(np.random.default_rng(0), 10_000, 0.1)
    start = time.process_time()
    calibration_error_interval(*answers)
    assert time.process_time() - start < 4  # 1 s on a core of its own


@pytest.mark.slow
@pytest.mark.parametrize("over", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("num_images", [100, 500])
def test_the_interval_holds_the_truth(num_images, over):
    generator = np.random.default_rng(0)
    truth = error_of(*draw(generator, 2_000_000, over))
    held = []
    for seed in range(200):
        answers = draw(generator, num_images, over)
        low, high = calibration_error_interval(*answers, num_resamples=200, seed=seed)
        held.append(low <= truth <= high)
    assert np.mean(held) >= 0.84  # 0.87 to 0.97 over 300 cases; 200 leave it within 0.05


@pytest.mark.slow
def test_percentiles_would_miss_the_truth_of_an_honest_model():
    generator = np.random.default_rng(0)
    truth = error_of(*draw(generator, 2_000_000, 0.0))
    held = []
    for _ in range(100):
        confidence, correct = draw(generator, 100, 0.0)
        rows = generator.integers(100, size=(100, 100))
        errors = [error_of(confidence[row], correct[row]) for row in rows]
        held.append(np.quantile(errors, 0.025) <= truth)
    assert np.mean(held) < 0.1
