"""`finetune recipes`: see, copy and check what a run does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.recipe.builtin import find_recipe, list_recipes

WRONG = """\
name: wrong
model: {backbone: resnet18, haed: linear}
stages:
  - {name: head, train: head, solver: probe}
  - {name: full, train: all, lr: -1}
"""
FOREIGN = """\
name: foreign
augment:
  kind: albumentations
  transforms:
    - {name: HorizontalFlp}
stages:
  - {name: full, train: all, optimizer: adamww}
"""


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    return path


def test_every_recipe_is_listed_with_what_it_is_for(call: Callable[..., Any]) -> None:
    rows = json.loads(call("recipes", "ls", "--json").out)
    assert rows == [{"name": one.name, "summary": one.summary} for one in list_recipes()]
    assert len(rows) >= 7


def test_the_list_is_also_for_people(call: Callable[..., Any]) -> None:
    names = [line.split()[0] for line in call("recipes", "ls").out.splitlines()]
    assert names == [one.name for one in list_recipes()]


def test_a_recipe_is_shown_as_it_is_written(call: Callable[..., Any]) -> None:
    text = find_recipe("gradual").read_text(encoding="utf-8")
    assert call("recipes", "show", "gradual").out == text


def test_an_unknown_recipe_gets_the_nearest_name(call: Callable[..., Any]) -> None:
    answer = call("recipes", "show", "gradul")
    assert answer.code == 2
    assert "(did you mean gradual?)" in answer.err


def test_a_recipe_is_copied_once(tmp_path: Path, call: Callable[..., Any]) -> None:
    file = tmp_path / "mine.yaml"
    answer = call("recipes", "copy", "probe", str(file))
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == f"{file} written\nnext: finetune run --recipe {file} --data DIR\n"
    assert file.read_bytes() == find_recipe("probe").read_bytes()
    again = call("recipes", "copy", "probe", str(file))
    assert again.code == 1
    assert again.err == f"error: {file} exists\nhint: choose another FILE, or add --overwrite\n"
    assert call("recipes", "copy", "gradual", str(file), "--overwrite").code == 0


def test_a_copy_needs_the_name_of_a_file(tmp_path: Path, call: Callable[..., Any]) -> None:
    answer = call("recipes", "copy", "probe", str(tmp_path))
    assert answer.err == (
        f"error: {tmp_path} is a folder\nhint: name a file: {tmp_path / 'probe'}.yaml\n"
    )


def test_all_problems_are_told_by_file_and_line(wrong: Path, call: Callable[..., Any]) -> None:
    answer = call("recipes", "check", str(wrong))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == (
        f"error: {wrong}:2: model.haed: unknown value 'haed' (did you mean head?)\n"
        f"error: {wrong}:5: stages.1.lr: must be greater than 0, got -1\n"
        "hint: finetune recipes schema describes every value\n"
    )


def test_names_of_other_libraries_are_checked_with_their_line(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    file = tmp_path / "foreign.yaml"
    file.write_text(FOREIGN)
    answer = call("recipes", "check", str(file), "--json")
    assert answer.code == 2
    problems = json.loads(answer.out)["problems"]
    assert [(one["line"], one["path"], one["hint"]) for one in problems] == [
        (7, "stages.0.optimizer", "did you mean adamw?"),
        (5, "augment.transforms.0", "did you mean HorizontalFlip?"),
    ]


@pytest.mark.parametrize("name", [one.name for one in list_recipes()])
def test_every_recipe_that_ships_is_in_order(name: str, call: Callable[..., Any]) -> None:
    assert json.loads(call("recipes", "check", name, "--json").out) == {
        "file": name,
        "problems": [],
    }


def test_a_recipe_in_order_says_so(call: Callable[..., Any]) -> None:
    assert call("recipes", "check", "probe").err == "probe: nothing wrong\n"


def test_the_schema_is_json(call: Callable[..., Any]) -> None:
    schema = json.loads(call("recipes", "schema").out)
    assert {"stages", "model", "data"} <= schema["properties"].keys()


def test_without_a_command_the_help_is_shown(call: Callable[..., Any]) -> None:
    answer = call("recipes")
    assert answer.code == 0
    assert answer.out.startswith("Usage: finetune recipes [OPTIONS] COMMAND")
