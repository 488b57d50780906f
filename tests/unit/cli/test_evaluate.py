"""`finetune evaluate`: the figures of a saved model, and never of photos it was trained on."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_the_photos_of_the_run_keep_its_parts(made: Any, call: Callable[..., Any]) -> None:
    document = json.loads(
        call("evaluate", str(made.folder), "--data", str(made.data), "--json").out
    )
    metrics = json.loads((made.folder / "metrics.json").read_text())
    assert document["splits"]["test"]["num_samples"] == 6
    assert document["splits"]["test"]["accuracy"] == metrics["splits"]["test"]["accuracy"]
    assert document["run"] == made.folder.name
    assert document["backbone"] == "test_vit"


def test_a_model_without_its_split_is_not_tested_on_its_own_photos(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    model = shutil.copytree(made.folder / "model", tmp_path / "model")
    answer = call("evaluate", str(model), "--data", str(made.data))
    assert answer.code == 3
    assert "figures from all of them would be no test" in answer.err
    assert "hint: name the run folder instead of its model" in answer.err


def test_other_photos_without_parts_are_taken_whole(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    data = shutil.copytree(made.data, tmp_path / "photos")
    answer = call("evaluate", str(made.folder), "--data", str(data))
    assert answer.code == 0
    assert answer.out.startswith("test: 36 images\n  accuracy  ")


def test_figures_of_validation_are_called_no_test(made: Any, call: Callable[..., Any]) -> None:
    answer = call("evaluate", str(made.folder), "--data", str(made.data), "--split", "val")
    assert answer.out.startswith("val: 6 images (used for selection: no test)\n")


def test_out_receives_the_tables_and_is_not_overwritten(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "figures"
    arguments = ("evaluate", str(made.folder), "--data", str(made.data), "--out", str(out))
    assert call(*arguments).code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "confusion_matrix.csv", "metrics.json", "per_class.csv", "plots", "predictions.csv",
        "report.html",
    ]  # fmt: skip
    again = call(*arguments)
    assert again.code == 1
    assert again.err == (
        f"error: {out} exists and is not empty; nothing is overwritten\n"
        "hint: choose another --out\n"
    )


def test_a_part_that_cannot_be_is_refused(made: Any, call: Callable[..., Any]) -> None:
    answer = call("evaluate", str(made.folder), "--data", str(made.data), "--split", "tset")
    assert answer.code == 2
    assert answer.err == (
        "error: --split tset is not one of train, val, test\nhint: --split test\n"
    )


def test_photos_of_no_known_class_are_refused(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    shutil.copytree(Path(made.data) / "red", tmp_path / "photos" / "purple")
    answer = call("evaluate", str(made.folder), "--data", str(tmp_path / "photos"))
    assert answer.code == 3
    assert "hint: the model knows blue, green, red\n" in answer.err
