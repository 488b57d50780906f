"""The files of a run are read back as they were written; what is damaged is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import Plan, make_outputs, write_run

from finetune.errors import FinetuneError
from finetune.evaluate.evaluate import evaluate
from finetune.recipe.load import dump_recipe
from finetune.recipe.schema import Recipe
from finetune.recipe.values import to_values
from finetune.report.answers import read_answers
from finetune.report.material import Asked, asked_of, read_material
from finetune.report.tables import MetricsHeader, write_tables
from finetune.types import Outputs


def test_figures_are_read_back_as_they_were(read: Callable[..., Any]) -> None:
    material, _ = read()
    assert material.main.split == "test"
    assert material.main.figures == evaluate(make_outputs(Plan(), "test"), split="test").figures


def test_answers_are_read_back_as_they_were(read: Callable[..., Any]) -> None:
    material, _ = read()
    given, answers = make_outputs(Plan(), "test"), material.main.answers
    assert answers.names == given.names
    assert np.array_equal(answers.labels, given.labels)
    assert np.array_equal(answers.predicted, given.probs.argmax(axis=1))
    assert np.array_equal(answers.confidence, given.probs.max(axis=1))
    assert np.array_equal(answers.own, given.probs[np.arange(60), given.labels])


def test_the_course_is_what_was_logged(read: Callable[..., Any]) -> None:
    material, _ = read(epochs=3)
    assert material.num_train == 90
    assert material.course.kept == ("full", 3)
    assert material.course.warnings == ("1 file could not be read",)
    assert [one.name for one in material.course.left_out] == ["train/broken.jpg"]
    assert [epoch.stage for epoch in material.epochs] == ["head", "full", "full", "full"]
    assert material.epochs[0].train_loss is None
    assert material.recipe_name == "invented"


def test_without_a_test_part_the_page_is_about_validation(read: Callable[..., Any]) -> None:
    material, _ = read(has_test=False)
    assert material.main.split == "val"


def test_a_class_may_have_any_name(tmp_path: Path) -> None:
    classes = ("NA", "None", 'a,"b"\nc', "split", "label")
    given = make_outputs(Plan(classes=classes, num_photos=20), "test")
    header = MetricsHeader("r", "b", classes)
    write_tables({"test": evaluate(given, split="test")}, tmp_path, header=header)
    answers = read_answers(tmp_path / "predictions.csv", classes)["test"]
    assert np.array_equal(answers.labels, given.labels)
    assert np.array_equal(answers.confusion.sum(axis=1), np.full(5, 4))


def test_what_could_not_be_read_or_has_no_class_is_not_scored(tmp_path: Path) -> None:
    probs = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]], np.float32)
    labels = np.array([1, 0, -1], np.int64)
    given = Outputs(("a", "b", "c"), labels, probs, ("ants", "bees"), {1: "truncated"})
    header = MetricsHeader("r", "b", ("ants", "bees"))
    write_tables({"test": evaluate(given, split="test")}, tmp_path, header=header)
    answers = read_answers(tmp_path / "predictions.csv", ("ants", "bees"))["test"]
    assert answers.is_scored.tolist() == [True, False, False]
    assert answers.is_mistake.tolist() == [True, False, False]


def test_a_line_of_the_log_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    with (run / "events.jsonl").open("a") as stream:
        stream.write('{"event": "Warned", "mess')
    assert read_material(run).course.warnings == ("1 file could not be read",)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match=r"it has no metrics\.json") as caught:
        read_material(tmp_path)
    assert caught.value.hint == "name a folder that finetune run wrote"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="none does not exist"):
        read_material(tmp_path / "none")


def test_a_run_that_has_not_ended_is_told_how_to_go_on(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(FinetuneError, match="has not come to its end") as caught:
        read_material(run)
    assert caught.value.hint == f"finetune run --resume --out {run}"


def test_a_model_is_told_where_its_run_is(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "finetune.json").write_text("{}")
    with pytest.raises(FinetuneError, match="is a saved model, not a run folder") as caught:
        read_material(tmp_path / "run" / "model")
    assert caught.value.hint == f"finetune report {tmp_path / 'run'}"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metrics.json", "{", "metrics.json is damaged: Expecting property name"),
        ("metrics.json", "[]", "metrics.json is damaged: it is no JSON object"),
        ("metrics.json", '{"schema_version": 2}', "its schema_version is 2, not 1"),
        ("metrics.json", '{"schema_version": 1}', "metrics.json is damaged: KeyError 'splits'"),
        (
            "predictions.csv",
            "path,split\n",
            "is damaged, or not of these 3 classes",
        ),
        ("history.csv", "stage,epoch\nhead,one\n", "history.csv is damaged: "),
        ("environment.json", "nothing", "environment.json is damaged: Expecting value"),
        ("events.jsonl", '{"event": "Warned"}\n', "events.jsonl is damaged: KeyError 'message'"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    run = write_run(tmp_path / "run")
    (run / name).write_text(text)
    with pytest.raises(FinetuneError, match=message):
        read_material(run)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "predictions.csv").unlink()
    with pytest.raises(FinetuneError, match=r"predictions\.csv cannot be read: No such file"):
        read_material(run)


def test_a_table_without_the_part_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    document = json.loads((run / "metrics.json").read_text())
    document["splits"]["train"] = document["splits"]["test"]
    (run / "metrics.json").write_text(json.dumps(document))
    with pytest.raises(
        FinetuneError, match=r"predictions\.csv is damaged: it has no photo of train"
    ):
        read_material(run)


def test_a_recipe_with_parts_from_python_is_known_by_what_the_model_says(tmp_path: Path) -> None:
    def darken(image: Any) -> Any:
        return image

    recipe = Recipe(name="mine", data={"path": "/photos"}, augment=darken, report={"maps": "none"})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert asked_of(tmp_path) == Asked(None, None, "grad-cam")
    (tmp_path / "model").mkdir()
    values = to_values(recipe, is_complete=True, mode="json")
    document = {"schema_version": 1, "recipe": values}
    (tmp_path / "model" / "finetune.json").write_text(json.dumps(document))
    assert asked_of(tmp_path) == Asked("mine", Path("/photos"), "none")


def test_figures_are_written_last_so_that_with_them_all_is_there(tmp_path: Path) -> None:
    (tmp_path / "slices.csv" / "in the way").mkdir(parents=True)
    given = make_outputs(Plan(num_photos=20), "test")
    header = MetricsHeader("r", "b", given.classes)
    with pytest.raises(FinetuneError, match=r"slices\.csv"):
        write_tables({"test": evaluate(given, split="test")}, tmp_path, header=header)
    assert not (tmp_path / "metrics.json").exists()
