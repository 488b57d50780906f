"""All that is fitted on validation together, and what is said of it on any split."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from finetune.evaluate.calibration import measure_calibration
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.fitting import fit_calibration
from finetune.evaluate.intervals import wilson
from finetune.recipe.schema import EvaluateSection
from finetune.types import Choice, Outputs

CLASSES = ("ants", "bees", "wasps")
NONE = Choice(None, "not asked for")
ALL = EvaluateSection(reject_at_precision=0.9, conformal_coverage=0.8)


def said_of(num_images, *, sure=3.0, seed=0, unreadable=()):
    """What a network says that is three times too sure."""
    generator = np.random.default_rng(seed)
    honest = generator.normal(0, 2, size=(num_images, 3))
    labels = (honest + generator.gumbel(size=honest.shape)).argmax(axis=1)
    logits = (sure * honest).astype(np.float32)
    logits[list(unreadable)] = np.nan
    probs = softmax(logits, axis=1).astype(np.float32)
    errors = dict.fromkeys(unreadable, "truncated")
    names = tuple(f"{n}.jpg" for n in range(num_images))
    return Outputs(names, labels, probs, CLASSES, errors, logits=logits)


def test_thresholds_rest_on_calibrated_probabilities():
    val = said_of(800)
    fitted = fit_calibration(val, ALL, reference=NONE)
    answers = fitted.applied(val)
    assert fitted.temperature == pytest.approx(3.0, rel=0.15)
    correct = answers.probs.argmax(axis=1) == val.labels
    assert correct[~answers.rejected].mean() > 0.9
    assert answers.sets[np.arange(800), val.labels].mean() >= 0.8
    assert set(fitted.reasons) == {
        "temperature", "reject_threshold", "conformal_threshold", "novelty_threshold",
    }  # fmt: skip


def test_what_is_not_asked_for_is_not_fitted_and_says_so():
    section = EvaluateSection(temperature=False, novelty=False)
    fitted = fit_calibration(said_of(50), section, reference=NONE)
    values = {**fitted.to_document()}
    assert set(values.pop("calibration_reasons").values()) == {"not asked for"}
    assert set(values.values()) == {None}


def test_images_that_cannot_be_read_do_not_count():
    whole, harmed = said_of(200), said_of(200, unreadable=range(100, 200))
    first = said_of(200)
    half = Outputs(
        first.names[:100], first.labels[:100], first.probs[:100], CLASSES, logits=first.logits[:100]
    )
    fitted = fit_calibration(harmed, ALL, reference=NONE)
    assert fitted == fit_calibration(half, ALL, reference=NONE)
    assert fitted != fit_calibration(whole, ALL, reference=NONE)


def test_where_no_image_can_be_read_nothing_is_promised():
    fitted = fit_calibration(said_of(3, unreadable=range(3)), ALL, reference=NONE)
    assert (fitted.temperature, fitted.reject_threshold, fitted.conformal_threshold) == (
        1.0, None, None,
    )  # fmt: skip


def test_nothing_is_fitted_on_images_that_stand_in_training_as_well():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 8)).astype(np.float32)
    said = said_of(200)
    parts = [
        Outputs(
            said.names[rows], said.labels[rows], said.probs[rows], CLASSES,
            logits=said.logits[rows], features=features[rows],
        )
        for rows in (slice(None), slice(100))
    ]  # fmt: skip
    found = generator.normal(size=(30, 8)).astype(np.float32)
    reference = Choice(found, "training photos")
    leaked = np.arange(200) >= 100
    fitted = fit_calibration(parts[0], ALL, reference=reference, leaked=leaked)
    without = fit_calibration(parts[1], ALL, reference=reference)
    assert fitted.to_document() == without.to_document()
    assert fitted.novelty.threshold == without.novelty.threshold
    whole = fit_calibration(parts[0], ALL, reference=reference)
    assert fitted.to_document() != whole.to_document()


def test_novelty_is_fitted_on_the_features_of_validation():
    generator = np.random.default_rng(0)
    val = said_of(40)
    features = generator.normal(size=(40, 8)).astype(np.float32)
    with_features = Outputs(
        val.names, val.labels, val.probs, CLASSES, logits=val.logits, features=features
    )
    reference = generator.normal(size=(30, 8)).astype(np.float32)
    fitted = fit_calibration(with_features, ALL, reference=Choice(reference, "training photos"))
    answers = fitted.applied(with_features)
    assert (answers.novelty > 1).sum() <= 2
    assert measure_calibration(answers, np.ones(40, bool)).num_novel == (answers.novelty > 1).sum()


def test_before_and_after_are_those_of_the_logits_with_and_without_the_temperature():
    val, test = said_of(600), said_of(500, seed=1)
    fitted = fit_calibration(val, ALL, reference=NONE)
    found = evaluate(fitted.applied(test), split="test").calibration
    for figure, temperature in (
        (found.log_loss_before, 1.0),
        (found.log_loss_after, fitted.temperature),
    ):
        probs = softmax(test.logits.astype(np.float64) / temperature, axis=1)
        assert figure == pytest.approx(log_loss(test.labels, probs), abs=1e-5)
    assert found.log_loss_after < found.log_loss_before
    assert found.ece_after < found.ece_before
    # Three times too sure is far from honest, and the temperature undoes it.
    assert found.ece_before_interval[0] > found.ece_after_interval[0]


def test_published_figures_are_those_after():
    val = said_of(300)
    result = evaluate(fit_calibration(val, ALL, reference=NONE).applied(val), split="val")
    assert result.calibration.log_loss_after == result.figures.log_loss
    assert result.calibration.ece_after == result.figures.expected_calibration_error


def test_sets_and_rejections_are_counted_with_intervals():
    answers = fit_calibration(said_of(400), ALL, reference=NONE).applied(said_of(300, seed=2))
    found = evaluate(answers, split="test").calibration
    covered = answers.sets[np.arange(300), answers.labels]
    correct = (answers.probs.argmax(axis=1) == answers.labels)[~answers.rejected]
    assert found.coverage_of_sets == pytest.approx(covered.mean())
    assert found.coverage_of_sets_interval == wilson(int(covered.sum()), 300)
    assert found.mean_set_size == pytest.approx(answers.sets.sum() / 300)
    assert found.num_rejected == answers.rejected.sum() > 0
    assert found.precision_of_answered == pytest.approx(correct.mean())
    assert found.precision_of_answered_interval == wilson(int(correct.sum()), len(correct))


def test_without_anything_fitted_before_is_after_and_the_rest_is_none(make_outputs):
    found = evaluate(make_outputs([0, 1, 1], [0, 1, 0]), split="test").calibration
    assert (found.ece_before, found.log_loss_before) == (found.ece_after, found.log_loss_after)
    assert found.coverage_of_sets is found.num_rejected is found.num_novel is None


def test_where_all_is_withheld_there_is_no_precision():
    val = said_of(20)
    withheld = Outputs(
        val.names, val.labels, val.probs, CLASSES, logits=val.logits, rejected=np.ones(20, bool)
    )
    found = measure_calibration(withheld, np.ones(20, bool))
    assert (found.num_rejected, found.precision_of_answered) == (20, None)
    assert found.precision_of_answered_interval is None


def test_fitting_needs_logits(make_outputs):
    with pytest.raises(ValueError, match="these outputs have none"):
        fit_calibration(make_outputs([0], [0]), ALL, reference=NONE)
