"""The tables of a run folder and of `predict`: exactly the contract's, readable by others."""

import csv
import errno
import json
import os
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from finetune.data.leaks import Leaks
from finetune.errors import FinetuneError
from finetune.evaluate.evaluate import evaluate
from finetune.evaluate.result import PredictionSpeed
from finetune.model.calibration import Calibration
from finetune.report.tables import (
    MetricsHeader,
    ProbeFigures,
    metrics_document,
    prediction_frame,
    prediction_rows,
    write_predictions,
    write_tables,
)
from finetune.types import Outputs

CLASSES = ("ants", "bees")
HARD = ("a,b", 'say "x"', "two\nlines", "cr\rhere", "Löwe", "true", "split")


def prediction_text(outputs, *, kind, top_k=None):
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"answers.{kind}"
        write_predictions(outputs, path, top_k=top_k)
        return path.read_bytes().decode()


def outputs_of(predicted, labels, classes=CLASSES, *, errors=None, names=None):
    """Outputs whose probabilities are random float32 numbers with the likeliest class given."""
    drawn = np.random.default_rng(0).dirichlet(np.ones(len(classes)), size=len(predicted))
    probs = drawn.astype(np.float32)
    rows, best = np.arange(len(predicted)), probs.argmax(axis=1)
    probs[rows, best], probs[rows, predicted] = probs[rows, predicted], probs[rows, best]
    probs[list(errors or {})] = np.nan
    names = names or tuple(f"{row}.jpg" for row in range(len(predicted)))
    return Outputs(names, np.array(labels, np.int64), probs, tuple(classes), errors or {})


def header_of(classes=CLASSES, **values):
    return MetricsHeader(run="run-1", backbone="test_efficientnet", classes=classes, **values)


@pytest.fixture
def results():
    val = evaluate(outputs_of([0, 1, 1], [0, 1, 0]), split="val")
    test = evaluate(outputs_of([1, 0, 1, 0], [1, 1, 1, -1], errors={2: "truncated"}), split="test")
    return {"val": val, "test": test}


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_five_files_are_written_and_nothing_else(results, tmp_path):
    write_tables(results, tmp_path, header=header_of())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "confusion_matrix.csv",
        "metrics.json",
        "per_class.csv",
        "predictions.csv",
        "slices.csv",
    ]


def test_metrics_json_has_the_fields_of_the_contract_in_order(results, tmp_path):
    header = header_of(
        selected_by="val_macro_f1",
        total_seconds=9.5,
        data_seconds=1.5,
        stage_seconds={"head": 3.0, "full": 4.0},
        peak_memory_mib=512,
        probe=ProbeFigures(val_accuracy=0.5, seconds=2.0),
        calibration=Calibration(
            temperature=1.25, reject_at_precision=0.9, reasons={"reject_threshold": "too few"}
        ),
        num_parameters=1_000,
        prediction=PredictionSpeed(num_images=30, seconds=1.5),
    )
    write_tables(results, tmp_path, header=header)
    document = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    splits = document.pop("splits")
    assert list(splits) == ["val", "test"]
    assert json.dumps(document) == json.dumps(
        {
            "schema_version": 1,
            "run": "run-1",
            "backbone": "test_efficientnet",
            "classes": ["ants", "bees"],
            "selected_by": "val_macro_f1",
            "probe": {"val_accuracy": 0.5, "seconds": 2.0},
            "seconds": {"total": 9.5, "data": 1.5, "stages": {"head": 3.0, "full": 4.0}},
            "peak_memory_mib": 512,
            "calibration": {
                "fitted_on": "val",
                "temperature": 1.25,
                "reject_at_precision": 0.9,
                "reject_threshold": None,
                "conformal_coverage": None,
                "conformal_threshold": None,
                "novelty_threshold": None,
                "novelty_neighbour": None,
                "reasons": {"reject_threshold": "too few"},
            },
            "num_parameters": 1_000,
            "prediction": {"num_images": 30, "seconds": 1.5, "images_per_second": 20.0},
        }
    )


def test_a_split_has_the_figures_of_the_contract_in_order_and_ours_beside(results):
    document = metrics_document(results, header=header_of(leaks={"val": Leaks(3, 2)}))
    assert list(document["splits"]["val"]) == [
        "num_samples",
        "accuracy",
        "accuracy_interval",
        "balanced_accuracy",
        "macro_f1",
        "macro_f1_interval",
        "weighted_f1",
        "macro_precision",
        "macro_recall",
        "top_5_accuracy",
        "log_loss",
        "expected_calibration_error",
        "roc_auc_ovr",
        "per_class",
        "num_unreadable",
        "num_unlabelled",
        "num_leaked",
        "num_near_leaked",
        "warnings",
        "calibration",
        "slices",
    ]
    assert document["splits"]["val"]["num_leaked"] == 3
    assert document["splits"]["val"]["num_near_leaked"] == 2
    assert document["splits"]["test"]["num_leaked"] is None
    assert document["splits"]["test"]["num_near_leaked"] is None


def test_a_split_says_how_honest_its_probabilities_are(results):
    document = metrics_document(results, header=header_of())
    found = json.loads(json.dumps(document["splits"]["val"]["calibration"], allow_nan=False))
    assert list(found)[:6] == [
        "ece_before",
        "ece_before_interval",
        "ece_after",
        "ece_after_interval",
        "log_loss_before",
        "log_loss_after",
    ]
    assert found["log_loss_after"] == document["splits"]["val"]["log_loss"]
    assert sum(row["num_samples"] for row in found["reliability"]) == 3
    assert found["coverage_accuracy"][-1]["coverage"] == 1.0
    assert found["num_rejected"] is None


def doubting(outputs):
    """The outputs with a set, a rejection and a score of novelty."""
    return replace(
        outputs,
        sets=outputs.probs >= 0.3,
        rejected=outputs.probs.max(axis=1) < 0.75,
        novelty=np.arange(len(outputs.names), dtype=np.float32),
    )


def test_doubts_stand_behind_the_columns_of_the_contract():
    outputs = Outputs(
        ("a", "b", "c"),
        np.array([-1, -1, -1]),
        np.array([[0.4, 0.6], [0.9, 0.1], [np.nan, np.nan]], np.float32),
        CLASSES,
        {2: "truncated file"},
    )
    lines = prediction_text(doubting(outputs), kind="csv").splitlines()
    assert lines[0] == "path,predicted,probability,p_ants,p_bees,error,set,rejected,ood"
    assert lines[1] == "a,bees,0.6,0.4,0.6,,bees|ants,True,0.0"
    assert lines[2] == "b,ants,0.9,0.9,0.1,,ants,False,1.0"
    assert lines[3] == "c,,,,,truncated file,,,"
    rows = list(prediction_rows(doubting(outputs)))
    assert [row["set"] for row in rows] == [["bees", "ants"], ["ants"], None]
    assert [row["rejected"] for row in rows] == [True, False, None]
    assert [row["ood"] for row in rows] == [0.0, 1.0, None]
    assert json.loads(prediction_text(doubting(outputs), kind="jsonl").splitlines()[0]) == rows[0]


def test_doubts_stand_at_the_end_of_predictions_csv(tmp_path):
    result = evaluate(doubting(outputs_of([0, 1], [0, 1])), split="test")
    write_tables({"test": result}, tmp_path, header=header_of())
    assert read(tmp_path / "predictions.csv")[0][6:] == [
        "p_ants", "p_bees", "set", "rejected", "ood",
    ]  # fmt: skip


def test_a_class_has_the_figures_of_the_contract_in_order(results):
    document = metrics_document(results, header=header_of())
    ants = document["splits"]["val"]["per_class"]["ants"]
    assert list(ants)[:5] == ["precision", "recall", "recall_interval", "f1", "support"]
    assert (ants["precision"], ants["recall"], ants["support"]) == (1.0, 0.5, 2)


def test_what_is_undefined_or_absent_is_null(tmp_path):
    result = evaluate(outputs_of([0, 0], [0, 0]), split="val")
    write_tables({"val": result}, tmp_path, header=header_of())
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert "NaN" not in text
    assert document["splits"]["test"] is None
    assert document["probe"] is None
    assert document["seconds"] == {"total": None, "data": None, "stages": {}}
    assert document["splits"]["val"]["roc_auc_ovr"] is None
    assert document["splits"]["val"]["macro_f1_interval"] is None
    assert document["splits"]["val"]["per_class"]["bees"]["recall_interval"] is None


def test_validation_is_never_written_as_test(results, tmp_path):
    write_tables({"val": results["val"]}, tmp_path, header=header_of())
    document = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert document["splits"]["test"] is None
    for name in ("per_class.csv", "confusion_matrix.csv"):
        assert {row[0] for row in read(tmp_path / name)[1:]} == {"val"}


def test_per_class_csv_has_the_columns_of_the_contract(results, tmp_path):
    write_tables(results, tmp_path, header=header_of())
    rows = read(tmp_path / "per_class.csv")
    assert ",".join(rows[0]) == (
        "split,class,precision,recall,f1,support,precision_low,precision_high,"
        "recall_low,recall_high,f1_low,f1_high"
    )
    assert [row[:2] for row in rows[1:]] == [
        ["val", "ants"],
        ["val", "bees"],
        ["test", "ants"],
        ["test", "bees"],
    ]


def test_an_undefined_figure_is_an_empty_cell(results, tmp_path):
    write_tables(results, tmp_path, header=header_of())
    ants = read(tmp_path / "per_class.csv")[3]
    assert ants[:6] == ["test", "ants", "0.0", "", "0.0", "0"]


def test_the_confusion_matrix_has_true_rows_and_predicted_columns(results, tmp_path):
    write_tables(results, tmp_path, header=header_of())
    assert read(tmp_path / "confusion_matrix.csv")[:3] == [
        ["split", "true", "ants", "bees"],
        ["val", "ants", "1", "1"],
        ["val", "bees", "0", "1"],
    ]


def test_predictions_csv_has_the_columns_of_the_contract_and_a_row_for_every_image(
    results, tmp_path
):
    write_tables(results, tmp_path, header=header_of())
    rows = read(tmp_path / "predictions.csv")
    assert ",".join(rows[0]) == "path,split,label,predicted,probability,correct,p_ants,p_bees"
    assert [row[:4] for row in rows[1:]] == [
        ["0.jpg", "val", "ants", "ants"],
        ["1.jpg", "val", "bees", "bees"],
        ["2.jpg", "val", "ants", "bees"],
        ["0.jpg", "test", "bees", "bees"],
        ["1.jpg", "test", "bees", "ants"],
        ["2.jpg", "test", "bees", ""],
        ["3.jpg", "test", "", "ants"],
    ]
    assert [row[5] for row in rows[1:]] == ["True", "True", "False", "True", "False", "", ""]


def test_the_figures_follow_from_predictions_csv_by_scikit_learn_alone(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    predicted = np.where(generator.random(60) < 0.7, labels, 0)
    result = evaluate(outputs_of(predicted, labels, ("a", "b", "c")), split="test")
    write_tables({"test": result}, tmp_path, header=header_of(("a", "b", "c")))
    table = pd.read_csv(tmp_path / "predictions.csv")
    figures = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["splits"]["test"]
    assert table["correct"].mean() == pytest.approx(figures["accuracy"])
    assert f1_score(table["label"], table["predicted"], average="macro") == pytest.approx(
        figures["macro_f1"]
    )


def test_probabilities_come_back_from_csv_bit_for_bit(results, tmp_path):
    write_tables({"val": results["val"]}, tmp_path, header=header_of())
    table = pd.read_csv(tmp_path / "predictions.csv")
    back = table[["p_ants", "p_bees"]].to_numpy().astype(np.float32)
    assert np.array_equal(back, results["val"].outputs.probs)


@given(st.floats(0, 1, width=32))
@settings(max_examples=100, deadline=None)
def test_any_float32_comes_back_from_csv(value):
    outputs = Outputs(("a",), np.array([0]), np.array([[value, 1 - value]], np.float32), ("x", "y"))
    row = next(csv.DictReader(StringIO(prediction_text(outputs, kind="csv"))))
    assert np.float32(row["p_x"]) == np.float32(value)


def test_names_with_commas_quotes_and_line_breaks_stay_one_cell(tmp_path):
    labels = list(range(len(HARD)))
    names = tuple(f"{name}.jpg" for name in HARD)
    result = evaluate(outputs_of(labels, labels, HARD, names=names), split="test")
    write_tables({"test": result}, tmp_path, header=header_of(HARD))
    predictions = read(tmp_path / "predictions.csv")
    assert [row[0] for row in predictions[1:]] == list(names)
    assert [row[3] for row in predictions[1:]] == list(HARD)
    assert predictions[0][6:] == [f"p_{name}" for name in HARD]
    confusion = read(tmp_path / "confusion_matrix.csv")
    assert confusion[0] == ["split", "true", *HARD]
    assert [row[1] for row in confusion[1:]] == list(HARD)
    assert [row[1] for row in read(tmp_path / "per_class.csv")[1:]] == list(HARD)


def test_pandas_reads_hard_names_back(tmp_path):
    labels = list(range(len(HARD)))
    result = evaluate(outputs_of(labels, labels, HARD), split="test")
    write_tables({"test": result}, tmp_path, header=header_of(HARD))
    assert pd.read_csv(tmp_path / "predictions.csv")["label"].tolist() == list(HARD)


def test_lines_end_in_a_newline_alone(results, tmp_path):
    write_tables(results, tmp_path, header=header_of())
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert b"\r" not in content
        assert content.endswith(b"\n")


def test_a_name_that_is_not_valid_text_is_escaped_in_csv_and_json_lines(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    outputs = outputs_of([0], [0], names=(name,))
    write_predictions(outputs, tmp_path / "a.csv")
    write_predictions(outputs, tmp_path / "a.jsonl")
    assert read(tmp_path / "a.csv")[1][0] == "caf\\udce9.jpg"
    assert json.loads((tmp_path / "a.jsonl").read_text(encoding="utf-8"))["path"] == name


def test_many_rows_are_written_whole(tmp_path):
    labels = np.arange(10_000) % 2
    result = evaluate(outputs_of(labels, labels), split="test")
    write_tables({"test": result}, tmp_path, header=header_of())
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table["path"].tolist() == list(result.outputs.names)


def test_a_full_disk_leaves_no_half_of_a_table(results, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FinetuneError) as caught:
        write_tables(results, tmp_path, header=header_of())
    assert caught.value.message == f"cannot write {tmp_path / 'per_class.csv'}: the disk is full"
    assert list(tmp_path.iterdir()) == []


def test_predict_gives_one_row_for_every_image_in_order():
    outputs = outputs_of([1, 0, 1], [-1, -1, -1], errors={1: "truncated file"})
    frame = prediction_frame(outputs)
    assert list(frame.columns) == ["path", "predicted", "probability", "p_ants", "p_bees", "error"]
    assert frame["path"].tolist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert frame.iloc[0][["predicted", "probability"]].tolist() == ["bees", frame.loc[0, "p_bees"]]
    assert frame.loc[1, "error"] == "truncated file"
    assert frame.iloc[1][["predicted", "probability", "p_ants"]].isna().all()


def test_predict_as_csv_leaves_cells_of_an_unreadable_image_empty():
    outputs = outputs_of([1, 0], [-1, -1], errors={1: "no image, or damaged"})
    lines = prediction_text(outputs, kind="csv").splitlines()
    assert lines[0] == "path,predicted,probability,p_ants,p_bees,error"
    assert lines[1].startswith("0.jpg,bees,0.")
    assert lines[1].endswith(",")
    assert lines[2] == '1.jpg,,,,,"no image, or damaged"'


def test_predict_as_json_lines_has_the_names_of_the_columns_and_null():
    outputs = outputs_of([1, 0], [-1, -1], errors={1: "truncated file"})
    first, second = map(json.loads, prediction_text(outputs, kind="jsonl").splitlines())
    assert first["predicted"] == "bees"
    assert first["error"] is None
    assert np.float32(first["p_bees"]) == outputs.probs[0, 1]
    assert second == {
        "path": "1.jpg",
        "predicted": None,
        "probability": None,
        "p_ants": None,
        "p_bees": None,
        "error": "truncated file",
    }


def test_rows_are_plain_values_with_the_fewest_digits():
    probs = np.array([[0.1, 0.9]], dtype=np.float32)
    rows = list(prediction_rows(Outputs(("a",), np.array([-1]), probs, CLASSES)))
    assert rows == [
        {
            "path": "a",
            "predicted": "bees",
            "probability": 0.9,
            "p_ants": 0.1,
            "p_bees": 0.9,
            "error": None,
        }
    ]


def test_top_k_adds_the_likeliest_classes_behind_the_first():
    probs = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]], dtype=np.float32)
    frame = prediction_frame(Outputs(("a", "b"), np.array([-1, -1]), probs, tuple("xyz")), top_k=2)
    assert list(frame.columns) == [
        "path",
        "predicted",
        "probability",
        "top_1",
        "top_1_probability",
        "top_2",
        "top_2_probability",
        "p_x",
        "p_y",
        "p_z",
        "error",
    ]
    assert frame["top_1"].tolist() == frame["predicted"].tolist() == ["y", "x"]
    assert frame["top_2"].tolist() == ["z", "y"]  # of equal ones the first class comes first
    assert frame["top_2_probability"].tolist() == [np.float32(0.3), np.float32(0.4)]


def test_top_k_beyond_the_classes_gives_all_classes():
    frame = prediction_frame(outputs_of([0], [-1]), top_k=9)
    assert [name for name in frame.columns if name.startswith("top_")] == [
        "top_1",
        "top_1_probability",
        "top_2",
        "top_2_probability",
    ]


def test_an_unreadable_image_has_no_top_classes():
    row = next(prediction_rows(outputs_of([0], [-1], errors={0: "empty"}), top_k=1))
    assert (row["top_1"], row["top_1_probability"]) == (None, None)


def test_probabilities_that_are_not_finite_give_no_prediction():
    outputs = outputs_of([0, 1], [-1, -1])
    outputs.probs[0] = np.nan
    assert [row["predicted"] for row in prediction_rows(outputs)] == [None, "bees"]


def test_no_images_give_a_header_and_no_row():
    empty = Outputs((), np.empty(0, np.int64), np.empty((0, 2), np.float32), CLASSES)
    header = "path,predicted,probability,top_1,top_1_probability,p_ants,p_bees,error\n"
    assert prediction_text(empty, kind="csv", top_k=1) == header
    assert prediction_text(empty, kind="jsonl") == ""


def test_the_ending_of_the_file_chooses_the_form(tmp_path):
    outputs = outputs_of([0, 1], [-1, -1])
    write_predictions(outputs, tmp_path / "a.CSV")
    write_predictions(outputs, tmp_path / "a.jsonl")
    assert (tmp_path / "a.CSV").read_text() == prediction_text(outputs, kind="csv")
    assert (tmp_path / "a.jsonl").read_text() == prediction_text(outputs, kind="jsonl")


def test_another_ending_is_refused_with_the_allowed_ones(tmp_path):
    path = tmp_path / "a.xlsx"
    sentence = f"cannot write predictions to {path}: its ending must be .csv or .jsonl"
    with pytest.raises(FinetuneError, match=sentence) as caught:
        write_predictions(outputs_of([0], [-1]), path)
    assert caught.value.hint == f"--out {tmp_path / 'a.csv'}"
