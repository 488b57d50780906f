"""The reference holds every value, and the schema for editors agrees with the check."""

import json

import pytest

from finetune.recipe.load import load_recipe
from finetune.recipe.reference import json_schema, markdown_reference
from finetune.recipe.schema import (
    DataSection,
    ModelSection,
    Recipe,
    RuntimeSection,
    Stage,
    TrainingSection,
)

TRAIN = (
    "`all`, `bias`, `{blocks: …}`, `head`, `{last_blocks: …}`, `{last: …}`, `{lora: …}`, "
    "`{match: …}`, `norm`"
)


def test_the_schema_is_json_and_names_its_dialect():
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert schema["additionalProperties"] is False


def test_the_schema_takes_words_for_components():
    properties = json_schema()["$defs"]["ModelSection"]["properties"]
    assert properties["head"]["anyOf"][0]["enum"] == ["cosine", "linear", "mlp"]


def test_the_schema_knows_what_a_name_and_a_device_may_be():
    properties = json_schema()["$defs"]["RuntimeSection"]["properties"]
    assert properties["device"]["pattern"] == r"^(auto|cpu|mps|cuda(:\d+)?)$"
    assert json_schema()["properties"]["name"]["pattern"] == "^[A-Za-z0-9_.-]{1,60}$"


def test_the_schema_does_not_offer_what_only_python_can_hold():
    assert "python" not in json.dumps(json_schema()).lower().replace("python users", "")


def test_docstrings_leave_their_sections_behind():
    assert json_schema()["description"] == "What a run does, as a person writes it."
    assert "Raises:" not in json.dumps(json_schema())


@pytest.mark.parametrize(
    ("section", "place"),
    [
        (Recipe, ""),
        (ModelSection, "model."),
        (DataSection, "data."),
        (Stage, "stages.0."),
        (TrainingSection, "training."),
        (RuntimeSection, "runtime."),
    ],
)
def test_the_reference_has_a_row_with_a_meaning_for_every_value(section, place):
    rows = [line for line in markdown_reference().splitlines() if line.startswith("| `")]
    for name in section.model_fields:
        [row] = [row for row in rows if row.startswith(f"| `{place}{name}` |")]
        assert row.rstrip("| ").rpartition("|")[2].strip()


@pytest.mark.parametrize(
    ("path", "cells"),
    [
        ("stages.0.epochs", ["whole number or `auto`", "`auto`", "≥ 1, ≤ 10,000"]),
        ("stages.0.train", [TRAIN, "*required*", ""]),
        ("stages.0.optimizer", ["text or mapping", "`adamw`", ""]),
        ("stages.0.schedule.at", ["list of number", "`[0.5, 0.75]`", "> 0, < 1"]),
        ("stages", ["list of mapping", "`[head]`", "at least 1"]),
        ("model.head", ["`cosine`, `linear`, `mlp`", "`linear`", ""]),
        ("model.weights", ["text or null", "`null`", ""]),
        ("training.clip_norm", ["number or null", "`null`", "> 0"]),
    ],
)
def test_a_row_says_type_default_and_range(path, cells):
    [row] = [line for line in markdown_reference().splitlines() if line.startswith(f"| `{path}` |")]
    assert [cell.strip() for cell in row.split("|")[2:5]] == cells


@pytest.mark.parametrize(
    "heading",
    [
        "## `model`",
        "## `stages.0`",
        "## `stages.0.early_stopping`",
        "### `stages.0.train: head`",
        "### `stages.0.train: {last: …}`",
        "### `stages.0.optimizer`",
        "### `augment: strong`",
    ],
)
def test_every_section_and_component_has_a_heading(heading):
    assert markdown_reference().splitlines().count(heading) == 1


def test_paths_of_the_reference_can_be_set():
    recipe = load_recipe(
        "default", overrides=["stages.1.early_stopping.patience=2", "stages.1.epochs=9"]
    )
    assert recipe.stages[1].early_stopping.patience == 2
