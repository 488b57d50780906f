"""Conformal sets: the textbook's quantile, and the coverage that is promised."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluate.conformal import choose_set_threshold
from finetune.model.calibration import Calibration, softmax
from finetune.types import Outputs


def draw(generator, num_images, num_classes=6, *, sureness=2.0):
    """Logits and labels of a model that is sure where it should not be."""
    honest = generator.normal(0, sureness, size=(num_images, num_classes))
    labels = (honest + generator.gumbel(size=honest.shape)).argmax(axis=1)
    return (1.7 * honest).astype(np.float32), labels


def sets_of(logits, threshold):
    names = tuple(map(str, range(len(logits))))
    classes = tuple(map(str, range(logits.shape[1])))
    outputs = Outputs(names, np.zeros(len(logits), int), logits, classes, logits=logits)
    return Calibration(conformal_threshold=threshold).applied(outputs).sets


@given(
    num_images=st.integers(1, 200),
    percent=st.integers(1, 99),
    seed=st.integers(0, 1_000),
)
@settings(max_examples=200, deadline=None)
def test_the_threshold_is_the_textbooks_quantile(num_images, percent, seed):
    logits, labels = draw(np.random.default_rng(seed), num_images)
    probs = softmax(logits)
    chosen = choose_set_threshold(probs, labels, coverage=percent / 100)
    rank = math.ceil((num_images + 1) * Fraction(percent, 100))  # in exact arithmetic
    scores = sorted((1 - probs[np.arange(num_images), labels].astype(np.float64)).tolist())
    if rank > num_images:
        assert chosen.value is None
    else:
        assert 1 - chosen.value == pytest.approx(scores[rank - 1], abs=1e-12)


@pytest.mark.parametrize(("coverage", "needed"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.5, 1)])
def test_too_few_images_say_how_many_it_takes(coverage, needed):
    probs = np.full((needed, 2), 0.5, np.float32)
    labels = np.zeros(needed, int)
    assert choose_set_threshold(probs, labels, coverage=coverage).value == 0.5
    chosen = choose_set_threshold(probs[1:], labels[1:], coverage=coverage)
    assert chosen.value is None
    assert chosen.reason.endswith(f"cannot promise a coverage of {coverage:g}: that takes {needed}")


def test_a_set_is_never_empty_and_always_has_the_likeliest_class():
    logits, _ = draw(np.random.default_rng(0), 300)
    sets = sets_of(logits, 0.999)
    assert sets[np.arange(300), logits.argmax(axis=1)].all()
    assert (sets.sum(axis=1) >= 1).all()


def test_a_threshold_of_0_names_all_classes():
    logits, _ = draw(np.random.default_rng(0), 5)
    assert sets_of(logits, 0.0).all()


@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_coverage_holds_over_a_thousand_calibrations(coverage):
    generator = np.random.default_rng(0)
    covered, sizes = [], []
    for _ in range(1_000):
        logits, labels = draw(generator, 60)
        later, truth = draw(generator, 20)
        threshold = choose_set_threshold(softmax(logits), labels, coverage=coverage).value
        sets = sets_of(later, threshold)
        covered.append(sets[np.arange(20), truth].mean())
        sizes.append(sets.sum(axis=1).mean())
    # Promised on average: 1,000 calibrations of 60 images leave it within 0.005.
    assert coverage - 0.005 <= np.mean(covered) <= coverage + 0.03
    assert np.mean(sizes) < 4


def test_a_model_that_is_righter_than_asked_covers_more_and_still_names_one():
    generator = np.random.default_rng(0)
    logits, labels = draw(generator, 400, sureness=20.0)
    threshold = choose_set_threshold(softmax(logits), labels, coverage=0.5).value
    later, truth = draw(generator, 400, sureness=20.0)
    sets = sets_of(later, threshold)
    assert sets[np.arange(400), truth].mean() > 0.9
    assert sets.sum(axis=1).max() <= 2
