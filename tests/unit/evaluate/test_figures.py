"""Figures of a split: scikit-learn's, with None for what is undefined."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from finetune.evaluate.figures import compute_figures, count_confusion
from finetune.evaluate.intervals import wilson

CLASSES = ("ants", "bees", "cats")


def figures_of(predicted, labels, classes=CLASSES, seed=0):
    probs = np.eye(len(classes), dtype=np.float32)[predicted]
    return compute_figures(probs, np.array(labels), classes=classes, seed=seed)


pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@given(pairs)
@settings(max_examples=40, deadline=None)
def test_figures_of_each_class_equal_scikit_learns(pairs):
    predicted, labels = np.array(pairs).T
    rows = figures_of(predicted, labels).per_class
    expected = precision_recall_fscore_support(labels, predicted, labels=[0, 1, 2], zero_division=0)
    # scikit-learn's 0 for the undefined is our None.
    assert [row.precision or 0 for row in rows] == pytest.approx(expected[0])
    assert [row.recall or 0 for row in rows] == pytest.approx(expected[1])
    assert [row.f1 or 0 for row in rows] == pytest.approx(expected[2])
    assert [row.support for row in rows] == expected[3].tolist()


@given(pairs)
@settings(max_examples=40, deadline=None)
def test_every_figure_lies_in_its_interval(pairs):
    figures = figures_of(*np.array(pairs).T)
    assert figures.accuracy_interval[0] <= figures.accuracy <= figures.accuracy_interval[1]
    for row in figures.per_class:
        for value, interval in (
            (row.precision, row.precision_interval),
            (row.recall, row.recall_interval),
            (row.f1, row.f1_interval),
        ):
            assert (value is None) == (interval is None)
            assert value is None or interval[0] - 1e-12 <= value <= interval[1] + 1e-12


@given(pairs)
@settings(max_examples=30, deadline=None)
def test_rows_of_the_confusion_are_true_and_columns_predicted(pairs):
    predicted, labels = np.array(pairs).T
    counts = count_confusion(predicted, labels, num_classes=3)
    assert np.array_equal(counts, confusion_matrix(labels, predicted, labels=[0, 1, 2]))
    assert counts.dtype == np.int64


def test_accuracy_has_wilsons_interval():
    figures = figures_of([0, 1, 2, 0], [0, 1, 2, 2])
    assert figures.accuracy == 0.75
    assert figures.accuracy_interval == wilson(3, 4)
    assert figures.num_samples == 4


def test_a_class_without_an_image_has_no_recall_but_a_precision_where_it_is_predicted():
    row = figures_of([0, 1, 2], [0, 1, 1]).per_class[2]
    assert (row.recall, row.recall_interval, row.support) == (None, None, 0)
    assert (row.precision, row.f1) == (0.0, 0.0)
    assert row.precision_interval == wilson(0, 1)


def test_a_class_never_predicted_has_no_precision_but_a_recall_of_0():
    row = figures_of([0, 1, 1], [0, 1, 2]).per_class[2]
    assert (row.precision, row.precision_interval) == (None, None)
    assert (row.recall, row.f1, row.support) == (0.0, 0.0, 1)


def test_a_class_neither_present_nor_predicted_has_no_figure():
    row = figures_of([0, 1], [0, 1]).per_class[2]
    assert (row.precision, row.recall, row.f1, row.f1_interval) == (None, None, None, None)


def test_balanced_accuracy_runs_over_the_classes_present():
    assert figures_of([0, 1, 2, 1], [0, 1, 1, 1]).balanced_accuracy == pytest.approx(5 / 6)


def test_a_split_of_one_class_has_no_area_and_all_other_averages():
    figures = figures_of([0, 0, 1], [0, 0, 0])
    assert figures.roc_auc_ovr is None
    assert figures.top_5_accuracy is None
    assert figures.balanced_accuracy == pytest.approx(2 / 3)
    assert figures.log_loss is not None


def test_a_perfect_split_has_an_interval_of_accuracy_and_none_of_macro_f1():
    figures = figures_of([0, 1, 2], [0, 1, 2])
    assert (figures.accuracy, figures.macro_f1, figures.roc_auc_ovr) == (1.0, 1.0, 1.0)
    assert figures.accuracy_interval == wilson(3, 3)
    assert figures.macro_f1_interval is None


def test_a_split_that_is_all_wrong_has_figures_of_0():
    figures = figures_of([1, 2, 0], [0, 1, 2])
    assert (figures.accuracy, figures.macro_f1, figures.balanced_accuracy) == (0.0, 0.0, 0.0)
    assert figures.accuracy_interval == wilson(0, 3)


def test_more_than_five_classes_have_a_top_5_accuracy():
    classes = tuple("abcdefg")
    figures = figures_of([0, 1, 2, 3], [0, 1, 2, 6], classes)
    assert figures.top_5_accuracy == 0.75  # of the equal ones the first four classes come next


def test_a_single_image_has_figures():
    figures = figures_of([1], [1])
    assert (figures.num_samples, figures.accuracy, figures.macro_f1) == (1, 1.0, 1.0)


def test_the_seed_moves_only_the_interval_of_macro_f1():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    predicted = np.where(generator.random(60) < 0.7, labels, 0)
    one, two = figures_of(predicted, labels, seed=1), figures_of(predicted, labels, seed=2)
    assert one.macro_f1_interval != two.macro_f1_interval
    assert (one.per_class, one.accuracy_interval) == (two.per_class, two.accuracy_interval)
