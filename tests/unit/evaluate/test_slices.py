"""Slices: quarters by what images look like, columns of a CSV, and what stands out of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.intervals import wilson
from finetune.types import Looks, Outputs


def outputs_of(right, *, brightness=None, sizes=None, extras=(), errors=None):
    """Outputs of N images of two classes; what is not given is the same for all images."""
    num_images = len(right)
    labels = np.arange(num_images) % 2
    predicted = np.where(right, labels, 1 - labels)
    probs = np.eye(2, dtype=np.float32)[predicted] * 0.8 + np.float32(0.1)
    probs[list(errors or {})] = np.nan
    same = np.full(num_images, 7.0)
    widths, heights = np.full((2, num_images), 100.0) if sizes is None else np.array(sizes).T
    looks = Looks(widths, heights, same if brightness is None else brightness, same)
    names = tuple(f"{row}.jpg" for row in range(num_images))
    return Outputs(names, labels, probs, ("a", "b"), errors or {}, looks=looks, extras=extras)


def slices_of(outputs):
    return evaluate(outputs, split="test").figures.slices


@pytest.fixture
def dark_is_hard():
    """400 images, right in half of the cases where they are dark and nearly always elsewhere."""
    brightness = np.random.default_rng(0).permutation(400).astype(float)
    return outputs_of((brightness >= 100) | (brightness % 2 == 0), brightness=brightness)


def test_quarters_have_plain_names_limits_and_wilsons_intervals(dark_is_hard):
    found = slices_of(dark_is_hard)
    assert [(one.by, one.name) for one in found] == [
        ("brightness", "darkest quarter"),
        ("brightness", "darker quarter"),
        ("brightness", "brighter quarter"),
        ("brightness", "brightest quarter"),
    ]
    darkest = found[0]
    assert (darkest.low, darkest.high, darkest.num_samples) == (0, 99, 100)
    assert (darkest.accuracy, darkest.rest_accuracy) == (0.5, 1.0)
    assert darkest.accuracy_interval == wilson(50, 100)


def test_p_values_are_fishers_corrected_for_all_slices(dark_is_hard):
    darkest = slices_of(dark_is_hard)[0]
    assert darkest.p_value == pytest.approx(4 * fisher_exact([[50, 50], [300, 0]]).pvalue)
    assert darkest.stands_out


def test_a_slice_that_stands_out_is_a_warning_of_the_figures(dark_is_hard):
    assert evaluate(dark_is_hard, split="test").figures.warnings == (
        "worse than the rest: brightness, darkest quarter: 50% of 100 images are right, of the "
        "others 100% (p at most 0.001, corrected for 4 slices)",
    )


def test_a_slice_that_is_better_than_the_rest_is_no_warning():
    brightness = np.arange(400.0)
    result = evaluate(
        outputs_of((brightness < 100) | (brightness % 2 == 0), brightness=brightness), split="test"
    )
    assert result.figures.slices[0].p_value < 0.001
    assert not any("darkest" in warning for warning in result.figures.warnings)


def test_few_images_are_too_small_to_tell():
    right = np.arange(80) >= 20
    found = slices_of(outputs_of(right, brightness=np.arange(80.0)))
    assert [one.num_samples for one in found] == [20, 20, 20, 20]
    assert all(one.is_small for one in found)
    assert found[0].accuracy == 0
    assert not found[0].stands_out


def test_sizes_give_pixels_and_aspect():
    sizes = [(10 + row, 40) for row in range(40)]
    found = slices_of(outputs_of(np.ones(40, bool), sizes=sizes))
    assert [one.by for one in found] == ["pixels"] * 4 + ["aspect"] * 4
    assert (found[0].name, found[0].low, found[0].high) == ("smallest quarter", 400, 760)
    assert (found[7].name, found[7].high) == ("longest quarter", 4.0)


def test_what_is_the_same_for_all_images_makes_no_slices():
    assert slices_of(outputs_of(np.ones(40, bool))) == ()


def test_many_equal_values_make_fewer_parts_named_by_their_limits():
    brightness = np.array([1.0] * 30 + [2.0] * 10)
    found = slices_of(outputs_of(np.ones(40, bool), brightness=brightness))
    assert [(one.name, one.num_samples) for one in found] == [("1 to 1", 30), ("2 to 2", 10)]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 7.0, 8.25, 1e6]), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_parts_hold_every_known_image_once_however_few_or_equal_they_are(values):
    found = slices_of(outputs_of(np.ones(len(values), bool), brightness=np.array(values)))
    assert sum(one.num_samples for one in found) == (len(values) if len(set(values)) > 1 else 0)
    assert all(one.num_samples and one.low <= one.high for one in found)
    assert [one.low for one in found] == sorted({one.low for one in found})


def test_two_images_are_parted_in_two():
    found = slices_of(outputs_of(np.ones(2, bool), brightness=np.array([3.0, 9.0])))
    assert [(one.name, one.num_samples) for one in found] == [("3 to 3", 1), ("9 to 9", 1)]


def test_unknown_values_and_images_that_are_not_scored_are_in_no_slice():
    brightness = np.arange(100.0)
    brightness[:10] = np.nan
    errors = {99: "truncated"}
    found = slices_of(outputs_of(np.ones(100, bool), brightness=brightness, errors=errors))
    assert sum(one.num_samples for one in found) == 89


def test_a_column_of_words_gives_a_slice_for_each_value_and_of_numbers_quarters():
    extras = tuple((("camera", "ab"[row % 2]), ("age", str(row))) for row in range(80))
    found = slices_of(outputs_of(np.ones(80, bool), extras=extras))
    assert [(one.by, one.name) for one in found] == [
        ("column camera", "a"),
        ("column camera", "b"),
        ("column age", "lowest quarter"),
        ("column age", "lower quarter"),
        ("column age", "higher quarter"),
        ("column age", "highest quarter"),
    ]
    assert found[0].low is None
    assert found[2].low == 0.0


def test_a_column_without_a_value_leaves_the_image_out_of_its_slices():
    extras = tuple((("camera", "ab"[row % 2]),) if row % 4 else () for row in range(80))
    assert [one.num_samples for one in slices_of(outputs_of(np.ones(80, bool), extras=extras))] == [
        20, 40,
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["{}x", "always"])
def test_a_column_of_too_many_words_or_of_one_makes_no_slices(value):
    extras = tuple((("note", value.format(row)),) for row in range(80))
    assert slices_of(outputs_of(np.ones(80, bool), extras=extras)) == ()


def test_outputs_without_looks_have_no_slices(make_outputs):
    assert slices_of(make_outputs([0, 1], [0, 1])) == ()


def test_the_frame_of_slices_has_its_columns_even_without_rows(dark_is_hard, make_outputs):
    frame = evaluate(dark_is_hard, split="test").slices
    empty = evaluate(make_outputs([0, 1], [0, 1]), split="test").slices
    assert list(frame.columns) == list(empty.columns)
    assert list(frame.columns)[:6] == ["by", "slice", "low", "high", "num_samples", "accuracy"]
    assert frame["stands_out"].tolist() == [True, False, False, False]
    assert len(empty) == 0


@pytest.mark.slow
def test_where_nothing_differs_a_slice_stands_out_in_few_evaluations():
    generator = np.random.default_rng(0)
    alarms = []
    for _ in range(200):
        sizes = generator.integers(50, 500, (300, 2))
        brightness = generator.random(300)
        found = slices_of(
            outputs_of(generator.random(300) < 0.8, brightness=brightness, sizes=sizes)
        )
        assert len(found) == 12
        alarms.append(any(one.stands_out for one in found))
    assert np.mean(alarms) <= 0.05
