"""Curves: scikit-learn's own, undefined where there is nothing, thinned without another area."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)

from finetune.evaluate.curves import MAX_POINTS, compute_curves, thinned

TOLERANCE = 1e-3


@st.composite
def evaluations(draw):
    """Probabilities and labels: ties, perfect and wholly wrong answers, classes without images."""
    num_classes = draw(st.integers(2, 12))
    num_images = draw(st.integers(1, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    probs = generator.dirichlet(np.ones(num_classes), size=num_images)
    kind = draw(st.sampled_from(["random", "ties", "equal", "sure"]))
    if kind == "ties":
        probs = np.round(probs * 4) + 1e-3
        probs /= probs.sum(axis=1, keepdims=True)
    elif kind == "equal":
        probs[:] = 1 / num_classes
    elif kind == "sure":
        probs = np.eye(num_classes)[probs.argmax(axis=1)]
    labels = {
        "random": generator.integers(0, num_classes, num_images),
        "perfect": probs.argmax(axis=1),
        "wrong": probs.argmin(axis=1),
        "one class": np.zeros(num_images, np.int64),
    }[draw(st.sampled_from(["random", "perfect", "wrong", "one class"]))]
    return probs.astype(np.float32), labels


def names(probs):
    return tuple(f"c{number}" for number in range(probs.shape[1]))


@given(evaluations())
@settings(max_examples=60, deadline=None)
def test_roc_is_scikit_learns_and_none_where_it_is_undefined(drawn):
    probs, labels = drawn
    for number, curves in enumerate(compute_curves(probs, labels, classes=names(probs)).per_class):
        is_class = labels == number
        if not is_class.any() or is_class.all():
            assert curves.roc is None
            continue
        expected = roc_curve(is_class, probs[:, number].astype(np.float64))
        found = (curves.roc.false_positive_rate, curves.roc.true_positive_rate)
        assert all(map(np.array_equal, (*found, curves.roc.thresholds), expected))
        assert curves.roc.area == pytest.approx(roc_auc_score(is_class, probs[:, number]))


@given(evaluations())
@settings(max_examples=60, deadline=None)
def test_precision_and_recall_are_scikit_learns(drawn):
    probs, labels = drawn
    for number, curves in enumerate(compute_curves(probs, labels, classes=names(probs)).per_class):
        is_class, scores = labels == number, probs[:, number].astype(np.float64)
        assert curves.support == is_class.sum()
        if not is_class.any():
            assert (curves.precision_recall, curves.threshold) == (None, None)
            continue
        expected = precision_recall_curve(is_class, scores, drop_intermediate=True)
        assert np.array_equal(curves.precision_recall.precision, expected[0])
        assert np.array_equal(curves.precision_recall.recall, expected[1])
        assert curves.precision_recall.average_precision == pytest.approx(
            average_precision_score(is_class, scores)
        )


@given(evaluations())
@settings(max_examples=40, deadline=None)
def test_a_point_of_the_threshold_curve_is_what_scikit_learn_says_of_that_threshold(drawn):
    probs, labels = drawn
    curves = compute_curves(probs, labels, classes=names(probs)).per_class[0].threshold
    scores, is_class = probs[:, 0].astype(np.float64), labels == 0
    if curves is None:
        assert not is_class.any()
        return
    place = len(curves.thresholds) // 2
    expected = precision_recall_fscore_support(
        is_class, scores >= curves.thresholds[place], average="binary", zero_division=0.0
    )
    found = (curves.precision[place], curves.recall[place], curves.f1[place])
    assert found == pytest.approx(expected[:3])
    assert curves.best_f1 == curves.f1.max()
    assert curves.best_threshold in curves.thresholds


@given(evaluations())
@settings(max_examples=60, deadline=None)
def test_top_k_accuracy_is_scikit_learns(drawn):
    probs, labels = drawn
    num_classes = probs.shape[1]
    found = compute_curves(probs, labels, classes=names(probs)).top_k_accuracy
    assert len(found) == min(10, num_classes)
    if num_classes <= 10:
        assert found[-1] == 1.0
    # Columns in reverse: of equal scores scikit-learn takes the last class, this package the first.
    expected = [
        np.mean(probs.argmax(axis=1) == labels)
        if num_classes == 2
        else top_k_accuracy_score(
            num_classes - 1 - labels, probs[:, ::-1], k=k, labels=np.arange(num_classes)
        )
        for k in range(1, min(3, num_classes))
    ]
    assert found[: len(expected)] == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["random", "ties", "steps", "rare", "corners"])
def test_a_thinned_curve_has_few_points_and_the_area_of_all(shape):
    generator = np.random.default_rng(0)
    is_class = generator.random(20_000) < (0.03 if shape == "rare" else 0.4)
    scores = generator.normal(is_class * 1.2, 1)
    if shape == "ties":
        scores = np.round(scores, 2)
    elif shape == "steps":  # 300 stairs as high as they are wide
        scores, is_class = -np.arange(20_000.0), np.arange(20_000) // 33 % 2 == 0
    elif shape == "corners":  # stairs of all sizes: the same at every scale
        scores, is_class = -np.arange(2.0**14), np.bitwise_count(np.arange(2**14)) % 2 == 0
    scores = 1 / (1 + np.exp(-scores / np.abs(scores).max()))
    probs = np.stack([scores, 1 - scores], axis=1)
    curves = compute_curves(probs, np.where(is_class, 0, 1), classes=("a", "b")).per_class[0]
    roc, whole = curves.roc, precision_recall_curve(is_class, scores, drop_intermediate=True)
    drawn = (roc.false_positive_rate, roc.true_positive_rate)
    assert len(drawn[0]) <= MAX_POINTS
    assert len(curves.precision_recall.recall) <= MAX_POINTS
    assert len(curves.threshold.thresholds) <= MAX_POINTS
    assert auc(*drawn) == pytest.approx(roc.area, abs=TOLERANCE)
    thin = auc(curves.precision_recall.recall, curves.precision_recall.precision)
    assert thin == pytest.approx(auc(whole[1], whole[0]), abs=TOLERANCE)


@given(st.integers(0, 2**32 - 1), st.integers(201, 3_000), st.floats(0.05, 20))
@settings(max_examples=30, deadline=None)
def test_any_rising_stairs_keep_their_area_when_thinned(seed, num_steps, shape):
    generator = np.random.default_rng(seed)
    x = np.append(0, generator.gamma(shape, size=num_steps).cumsum())
    y = np.append(0, generator.gamma(shape, size=num_steps).cumsum())
    x, y = np.repeat(x / x[-1], 2)[1:], np.repeat(y / y[-1], 2)[:-1]
    kept = thinned(x, y)
    assert len(kept) <= MAX_POINTS
    assert (kept[0], kept[-1]) == (0, len(x) - 1)
    assert np.trapezoid(y[kept], x[kept]) == pytest.approx(np.trapezoid(y, x), abs=TOLERANCE)


def test_a_straight_line_needs_its_ends_alone():
    x = np.linspace(0, 1, 500)
    assert thinned(x, np.zeros(500)).tolist() == [0, 499]


@pytest.mark.slow
def test_the_curves_of_ten_thousand_images_of_a_hundred_classes_take_seconds():
    generator = np.random.default_rng(0)
    probs = generator.dirichlet(np.ones(100), size=10_000).astype(np.float32)
    start = time.process_time()
    compute_curves(probs, generator.integers(0, 100, 10_000), classes=names(probs))
    assert time.process_time() - start < 10
