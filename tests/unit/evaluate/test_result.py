"""The frames and the text of a result."""

import numpy as np
import pandas as pd
import pytest

from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.result import has_answer, is_scored


@pytest.fixture
def result(make_outputs):
    outputs = make_outputs([0, 1, 1, 0, 0], [0, 1, 0, -1, 1], errors={4: "truncated file"})
    return evaluate(outputs, split="test")


def test_the_table_per_class_has_the_columns_of_the_contract(result):
    assert list(result.per_class.columns) == [
        "class",
        "precision",
        "recall",
        "f1",
        "support",
        "precision_low",
        "precision_high",
        "recall_low",
        "recall_high",
        "f1_low",
        "f1_high",
    ]
    assert result.per_class["class"].tolist() == ["ants", "bees"]
    assert result.per_class["recall"].tolist() == [0.5, 1.0]
    assert result.per_class["support"].tolist() == [2, 1]


def test_the_ends_per_class_are_those_of_the_figures(result):
    row = result.per_class.iloc[0]
    assert (row["recall_low"], row["recall_high"]) == result.figures.per_class[0].recall_interval


def test_an_undefined_figure_is_missing_in_the_table_per_class(make_outputs):
    row = evaluate(make_outputs([0], [0]), split="test").per_class.iloc[1]
    assert row[["precision", "recall", "f1", "recall_low", "f1_high"]].isna().all()


def test_the_confusion_has_true_classes_as_rows_and_predicted_ones_as_columns(result):
    assert result.confusion.loc["ants", "bees"] == 1
    assert result.confusion.loc["bees", "ants"] == 0
    assert (result.confusion.index.name, result.confusion.columns.name) == ("true", "predicted")
    assert result.confusion.to_numpy().sum() == result.figures.num_samples


def test_the_predictions_have_the_columns_of_the_contract_and_a_row_for_every_image(result):
    assert list(result.predictions.columns) == [
        "path",
        "split",
        "label",
        "predicted",
        "probability",
        "correct",
        "p_ants",
        "p_bees",
    ]
    assert result.predictions["path"].tolist() == [f"{row}.jpg" for row in range(5)]


def test_a_scored_image_has_its_whole_row(result):
    row = result.predictions.iloc[2]
    assert row[["split", "label", "predicted"]].tolist() == ["test", "ants", "bees"]
    assert row["probability"] == row["p_bees"] == np.float32(0.7)
    assert row["correct"] == False  # noqa: E712 - numpy's own False


def test_an_image_of_an_unknown_class_is_predicted_but_neither_right_nor_wrong(result):
    row = result.predictions.iloc[3]
    assert row["predicted"] == "ants"
    assert pd.isna(row["label"])
    assert pd.isna(row["correct"])


def test_an_unreadable_image_has_a_label_but_no_prediction(result):
    row = result.predictions.iloc[4]
    assert row["label"] == "bees"
    assert row[["predicted", "probability", "correct", "p_ants", "p_bees"]].isna().all()


def test_probabilities_stay_float32(result):
    types = result.predictions[["probability", "p_ants", "p_bees"]].dtypes
    assert [str(kind) for kind in types] == ["float32"] * 3


def test_changing_a_frame_changes_nothing_else(result):
    confusion, predictions = result.confusion, result.predictions
    confusion.loc["ants", "bees"] = 99
    predictions.loc[0, "p_ants"] = 9.0
    assert result.confusion.loc["ants", "bees"] == 1
    assert result.predictions.loc[0, "p_ants"] == np.float32(0.7)


def test_what_is_answered_and_what_is_scored_differ_by_the_unknown_class(result):
    assert has_answer(result.outputs).tolist() == [True, True, True, True, False]
    assert is_scored(result.outputs).tolist() == [True, True, True, False, False]


def test_a_result_shows_its_main_figures(make_outputs):
    result = evaluate(make_outputs([0, 1, 1, 0], [0, 1, 0, 0]), split="test")
    assert repr(result) == (
        "EvalResult(test: 4 images, accuracy 0.750 [0.301, 0.954], macro F1 0.733)"
    )


def test_the_summary_lists_figures_and_the_weakest_class_first(make_outputs):
    predicted, labels = [0] * 60 + [1] * 30 + [0] * 20, [0] * 60 + [1] * 50
    result = evaluate(make_outputs(predicted, labels), split="test")
    low, high = result.figures.macro_f1_interval
    assert result.summary().splitlines() == [
        "test: 110 images of 2 classes",
        "accuracy            81.8 %   95 % interval 73.6 to 87.9 %",
        f"macro F1            80.4 %   95 % interval {100 * low:.1f} to {100 * high:.1f} %",
        "balanced accuracy   80.0 %",
        "",
        "class  precision   recall       F1  images",
        "bees     100.0 %   60.0 %   75.0 %      50",
        "ants      75.0 %  100.0 %   85.7 %      60",
    ]


def test_the_summary_of_validation_says_that_it_is_no_test(make_outputs):
    summary = evaluate(make_outputs([0, 1] * 50, [0, 1] * 50), split="val").summary()
    assert summary.startswith("val: 100 images of 2 classes (it chose the weights: no test)\n")


def test_the_summary_ends_in_the_warnings(make_outputs):
    summary = evaluate(make_outputs([0, 1], [0, 1]), split="test").summary()
    assert summary.splitlines()[-1].startswith("note: too small to tell: from 2 images")


def test_the_summary_shows_no_figure_where_it_is_undefined(make_outputs):
    summary = evaluate(make_outputs([0], [0]), split="test").summary()
    assert "bees           -        -        -       0" in summary.splitlines()


def test_the_summary_of_many_classes_lists_the_20_weakest(make_outputs):
    classes = [f"c{number:02}" for number in range(25)]
    predicted = [*range(24), 0] * 20
    summary = evaluate(make_outputs(predicted, [*range(25)] * 20, classes), split="test").summary()
    lines = summary.splitlines()
    assert lines[6].split()[0] == "c24"
    assert lines[-1] == "and 5 more classes, none of them weaker"


def test_the_curves_are_those_of_the_scored_images(result):
    assert result.curves.top_k_accuracy == (2 / 3, 1.0)
    assert [curves.support for curves in result.curves.per_class] == [2, 1]
