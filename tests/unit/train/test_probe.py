"""The probe is scikit-learn's fit, its scaling folded in, its strength chosen honestly."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from finetune.train.probe import Features, fit_probe


def make_features(num: int, *, num_classes: int, width: int, seed: int = 0) -> Features:
    """Clusters on coordinates of very different scales."""
    centres = np.random.default_rng(7).normal(size=(num_classes, width))
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % num_classes
    values = centres[labels] + rng.normal(size=(num, width))
    scales = np.logspace(-2, 2, width)
    return Features((values * scales + 5 * scales).astype(np.float32), labels.astype(np.int64))


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("width", [6, 300])
def test_weights_equal_scikit_learns_on_scaled_features(num_classes: int, width: int) -> None:
    train = make_features(120, num_classes=num_classes, width=width)
    val = make_features(100, num_classes=num_classes, width=width, seed=1)
    probe = fit_probe(train, val, num_classes=num_classes)
    scaler = StandardScaler().fit(train.values)
    model = LogisticRegression(C=probe.strength, max_iter=5000, tol=1e-6)
    model.fit(scaler.transform(train.values), train.labels)
    expected = model.predict_proba(scaler.transform(val.values))
    # 0.02: the probe's own fit stops at a looser tolerance
    np.testing.assert_allclose(probe.probabilities(val.values), expected, atol=0.02)


def test_two_classes_get_two_symmetric_rows() -> None:
    train = make_features(60, num_classes=2, width=5)
    probe = fit_probe(train, make_features(0, num_classes=2, width=5), num_classes=2)
    np.testing.assert_allclose(probe.weight[0], -probe.weight[1])


def test_strength_comes_from_validation_where_that_is_large() -> None:
    train = make_features(60, num_classes=3, width=5)
    val = make_features(120, num_classes=3, width=5, seed=1)
    probe = fit_probe(train, val, num_classes=3)
    assert probe.reason == "least log loss on 120 validation images"


def test_strength_comes_from_folds_where_validation_is_small() -> None:
    train = make_features(60, num_classes=3, width=5)
    val = make_features(9, num_classes=3, width=5, seed=1)
    probe = fit_probe(train, val, num_classes=3)
    assert probe.reason == "least log loss over 5 folds of the training part"


def test_class_of_one_image_is_fitted_without_folds() -> None:
    train = make_features(7, num_classes=7, width=50)
    probe = fit_probe(train, make_features(0, num_classes=7, width=50), num_classes=7)
    assert "a class has one training image" in probe.reason
    assert (probe.probabilities(train.values).argmax(axis=1) == train.labels).all()


def test_constant_feature_does_no_harm() -> None:
    train = make_features(60, num_classes=2, width=5)
    values = np.hstack([train.values, np.full((60, 1), 3.0, dtype=np.float32)])
    probe = fit_probe(
        Features(values, train.labels), make_features(0, num_classes=2, width=6), num_classes=2
    )
    assert np.isfinite(probe.weight).all()


@pytest.mark.parametrize("num_images", [60, 2000])
def test_noise_is_answered_by_strong_regularisation(num_images: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(num_images, 40)).astype(np.float32)
    train = Features(values, rng.integers(0, 2, num_images))
    probe = fit_probe(train, Features(train.values[:0], train.labels[:0]), num_classes=2)
    assert probe.strength <= 1 / num_images  # as heavy as the loss of all images together


def test_balanced_probe_finds_the_rare_class_more_often() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 190 + [1] * 10)
    values = (rng.normal(size=(200, 3)) + labels[:, None]).astype(np.float32)
    none = Features(values[:0], labels[:0])
    plain = fit_probe(Features(values, labels), none, num_classes=2)
    fair = fit_probe(Features(values, labels), none, num_classes=2, balanced=True)
    assert (fair.probabilities(values)[:, 1] > 0.5).sum() > (
        plain.probabilities(values)[:, 1] > 0.5
    ).sum()


FIRST_FIT = """
import sys
import numpy as np
import threadpoolctl
from finetune.train.probe import Features, fit_probe

limits = threadpoolctl.threadpool_limits

def seen(number):
    limited = limits(number)
    print(number, "sklearn.linear_model" in sys.modules, "scipy.linalg" in sys.modules)
    return limited

threadpoolctl.threadpool_limits = seen
values = np.arange(8, dtype=np.float32).reshape(4, 2)
empty = Features(np.empty((0, 2), np.float32), np.empty(0, np.int64))
fit_probe(Features(values, np.array([0, 0, 1, 1])), empty, num_classes=2)
"""


@pytest.mark.slow
def test_the_libraries_of_a_first_fit_are_loaded_when_their_threads_are_limited() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FIRST_FIT]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout == "1 True True\n"
