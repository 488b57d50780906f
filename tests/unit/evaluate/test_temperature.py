"""The temperature: scikit-learn's, never worse than none, and always within bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from finetune.evaluate.temperature import BOUNDS, MIN_GAIN, fit_temperature


def draw(num_images, num_classes, temperature, *, seed=0, scale=3.0):
    """Logits that are right in their likelihoods once divided by a temperature, with labels."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(0, scale, size=(num_images, num_classes))
    gumbel = generator.gumbel(size=honest.shape)
    return (honest * temperature).astype(np.float32), (honest + gumbel).argmax(axis=1)


def mean_loss(logits, labels, temperature):
    logs = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -logs[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("truth", [0.4, 1.7, 5.0])
def test_the_temperature_of_drawn_labels_is_found(truth):
    # From 4,000 images the maximum of the likelihood is known within a few percent.
    assert fit_temperature(*draw(4_000, 5, truth)).value == pytest.approx(truth, rel=0.06)


def test_the_temperature_is_scikit_learns():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(600, 4))
    labels = (points @ generator.normal(size=(4, 3)) + generator.gumbel(size=(600, 3))).argmax(1)
    classifier = LogisticRegression(C=100).fit(points[:100], labels[:100])
    classifier.coef_ *= 3.0  # too sure
    theirs = CalibratedClassifierCV(FrozenEstimator(classifier), method="temperature")
    theirs.fit(points[100:], labels[100:])
    inverse = theirs.calibrated_classifiers_[0].calibrators[0].beta_
    logits = classifier.decision_function(points[100:]).astype(np.float32)
    # Both stop when the minimum is known to a part in ten thousand.
    assert fit_temperature(logits, labels[100:]).value == pytest.approx(1 / inverse, rel=1e-3)


@given(
    num_images=st.integers(0, 40),
    num_classes=st.integers(1, 6),
    scale=st.floats(0.0, 1e4),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None)
def test_it_is_within_bounds_and_never_makes_labels_less_likely(
    num_images, num_classes, scale, seed
):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, scale, size=(num_images, num_classes)).astype(np.float32)
    labels = generator.integers(0, num_classes, num_images)
    chosen = fit_temperature(logits, labels)
    assert BOUNDS[0] <= chosen.value <= BOUNDS[1]
    assert chosen.reason
    if num_images:
        before, after = (mean_loss(logits, labels, t) for t in (1.0, chosen.value))
        assert after <= before + 1e-9 * max(1, before)


def test_the_loss_is_that_of_scikit_learn():
    logits, labels = draw(200, 4, 3.0)
    chosen = fit_temperature(logits, labels)
    after, before = (
        log_loss(labels, np.exp(log_softmax(logits.astype(np.float64) / t, axis=1)))
        for t in (chosen.value, 1.0)
    )
    expected = f"least log loss on 200 validation images: {after:.4f} instead of {before:.4f}"
    assert chosen.reason == expected


def test_no_other_temperature_is_better():
    logits, labels = draw(300, 6, 2.5)
    best = mean_loss(logits, labels, fit_temperature(logits, labels).value)
    others = [mean_loss(logits, labels, t) for t in np.geomspace(*BOUNDS, 400)]
    assert best <= min(others) + 1e-9


def test_without_images_nothing_is_fitted():
    chosen = fit_temperature(np.empty((0, 3), np.float32), np.empty(0, np.int64))
    assert (chosen.value, chosen.reason) == (1.0, "there is no validation image to fit it on")


def test_where_every_image_is_right_it_stays_1():
    chosen = fit_temperature(np.eye(3, dtype=np.float32), np.arange(3))
    assert chosen.value == 1.0
    assert chosen.reason.startswith("all 3 validation images are right")


def test_a_gain_that_chance_gives_is_not_taken():
    logits, labels = draw(60, 4, 1.05)
    assert (
        60
        * (
            mean_loss(logits, labels, 1.0)
            - min(mean_loss(logits, labels, t) for t in (0.9, 1.05, 1.1))
        )
        > 0
    )
    chosen = fit_temperature(logits, labels)
    assert chosen.value == 1.0
    assert chosen.reason.endswith("no other temperature gains more than chance would")


def test_a_gain_is_taken_from_one_nat_on():
    logits, labels = draw(60, 4, 3.0)
    chosen = fit_temperature(logits, labels)
    gain = 60 * (mean_loss(logits, labels, 1.0) - mean_loss(logits, labels, chosen.value))
    assert chosen.value != 1.0
    assert gain >= MIN_GAIN


def test_labels_that_contradict_the_model_hold_it_at_its_bound():
    logits = np.eye(2, dtype=np.float32)[np.arange(50) % 2] * 30
    chosen = fit_temperature(logits, 1 - np.arange(50) % 2)
    assert chosen.value == pytest.approx(BOUNDS[1], rel=0.01)
    assert "held at its bound" in chosen.reason


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_images_with_a_logit_that_is_not_finite_do_not_count(value):
    logits, labels = draw(100, 3, 2.0)
    harmed = np.vstack([logits, np.full((1, 3), value, np.float32)])
    found = fit_temperature(harmed, np.append(labels, 0))
    assert found == fit_temperature(logits, labels)


@pytest.mark.slow
def test_it_helps_with_images_it_was_not_fitted_on_or_hardly_harms():
    changes = []
    for seed in range(300):
        truth = np.random.default_rng(seed).uniform(0.6, 2.0)
        logits, labels = draw(2_060, 5, truth, seed=seed)
        value = fit_temperature(logits[:60], labels[:60]).value
        later = (logits[60:], labels[60:])
        changes.append(mean_loss(*later, value) - mean_loss(*later, 1.0))
    assert np.mean(changes) < -0.01
    assert np.quantile(changes, 0.95) < 0.01
