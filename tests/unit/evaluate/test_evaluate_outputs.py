"""What is scored, what is not, and what is said of it."""

import numpy as np
import pytest

from finetune.errors import DataError, FinetuneError
from finetune.evaluate.evaluate import evaluate
from finetune.types import Outputs


def test_every_image_of_a_known_class_is_scored(make_outputs):
    result = evaluate(make_outputs([0, 1, 1, 0], [0, 1, 0, 0]), split="test")
    assert (result.split, result.figures.num_samples, result.figures.accuracy) == ("test", 4, 0.75)
    assert (result.figures.num_unreadable, result.figures.num_unlabelled) == (0, 0)


def test_notes_stand_first_among_the_warnings(make_outputs):
    figures = evaluate(make_outputs([0, 1], [0, 1]), split="test", notes=["leaks"]).figures
    assert figures.warnings[0] == "leaks"
    assert len(figures.warnings) == 2


def test_an_image_that_could_not_be_read_is_counted_and_named_but_not_scored(make_outputs):
    outputs = make_outputs([0, 1, 1], [0, 1, 0], errors={2: "truncated file"})
    figures = evaluate(outputs, split="test").figures
    assert (figures.num_samples, figures.accuracy, figures.num_unreadable) == (2, 1.0, 1)
    assert "1 image could not be read, not scored: 2.jpg (truncated file)" in figures.warnings


def test_an_image_of_an_unknown_class_is_counted_and_named_but_not_scored(make_outputs):
    figures = evaluate(make_outputs([0, 1, 1, 1], [0, 1, -1, -1]), split="test").figures
    assert (figures.num_samples, figures.num_unlabelled) == (2, 2)
    assert (
        "2 images of a class that the model does not know, not scored: 2.jpg, 3.jpg"
        in figures.warnings
    )


def test_an_unreadable_image_of_an_unknown_class_is_counted_once(make_outputs):
    figures = evaluate(make_outputs([0, 1], [0, -1], errors={1: "empty"}), split="val").figures
    assert (figures.num_unreadable, figures.num_unlabelled) == (1, 0)


def test_classes_without_an_image_are_named(make_outputs):
    outputs = make_outputs([0, 0], [0, 0], ("ants", "bees", "cats"))
    assert (
        "2 classes without an image: bees, cats" in evaluate(outputs, split="test").figures.warnings
    )


def test_a_split_too_small_to_tell_says_so(make_outputs):
    warnings = evaluate(make_outputs([0, 1] * 5, [0, 1] * 5), split="test").figures.warnings
    assert warnings == (
        "too small to tell: from 10 images the accuracy is only known to lie between 72% and 100% "
        "(95 %)",
    )


def test_a_split_that_is_large_enough_says_nothing(make_outputs):
    assert evaluate(make_outputs([0, 1] * 50, [0, 1] * 50), split="test").figures.warnings == ()


def test_a_split_without_images_is_refused():
    empty = Outputs((), np.empty(0, np.int64), np.empty((0, 2), np.float32), ("ants", "bees"))
    with pytest.raises(DataError) as caught:
        evaluate(empty, split="test")
    assert str(caught.value) == "test has no images, so there is nothing to evaluate"


def test_a_split_without_one_image_to_score_is_refused_with_the_counts(make_outputs):
    outputs = make_outputs([0, 1, 0], [0, -1, -1], errors={0: "empty"})
    with pytest.raises(DataError) as caught:
        evaluate(outputs, split="test")
    assert caught.value.message == (
        "none of the 3 images of test can be scored: 1 could not be read, "
        "2 are of no class that the model knows"
    )
    assert caught.value.hint == "the model knows these classes: ants, bees"


def test_probabilities_that_are_not_finite_are_refused_with_the_names(make_outputs):
    outputs = make_outputs([0, 1, 0], [0, 1, 0])
    outputs.probs[1] = np.nan
    with pytest.raises(FinetuneError) as caught:
        evaluate(outputs, split="test")
    assert caught.value.message == (
        "the model gives probabilities that are not finite for 1 of 3 images: 1.jpg"
    )
    assert caught.value.hint == (
        "train again with a lower lr, or with --set runtime.precision=fp32"
    )


def test_evaluating_changes_nothing_in_the_outputs(make_outputs):
    outputs = make_outputs([0, 1], [0, 1])
    before = outputs.probs.copy()
    evaluate(outputs, split="test")
    assert np.array_equal(outputs.probs, before)
