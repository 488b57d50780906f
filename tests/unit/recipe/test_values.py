"""One value set in nested values, by dotted path."""

import pytest

from finetune.components.policies import AllPolicy
from finetune.errors import RecipeError
from finetune.recipe.schema import ModelSection, Recipe
from finetune.recipe.stages import Stage
from finetune.recipe.values import describe_choices, to_values, with_value


@pytest.mark.parametrize(
    ("values", "path", "value", "expected"),
    [
        ({}, "seed", 3, {"seed": 3}),
        ({}, "training.ema", 0.9, {"training": {"ema": 0.9}}),
        ({"training": None}, "training.ema", 0.9, {"training": {"ema": 0.9}}),
        ({"a": [1, 2]}, "a.1", 3, {"a": [1, 3]}),
        (
            {"model": {"head": "mlp"}},
            "model.head.hidden",
            64,
            {"model": {"head": {"kind": "mlp", "hidden": 64}}},
        ),
        (
            {"model": {"head": {"kind": "mlp", "hidden": 64}}},
            "model.head.kind",
            "cosine",
            {"model": {"head": {"kind": "cosine"}}},
        ),
        (
            {"model": {"head": {"kind": "mlp", "hidden": 64}}},
            "model.head.kind",
            "mlp",
            {"model": {"head": {"kind": "mlp", "hidden": 64}}},
        ),
        ({}, "model.head.depths", 3, {"model": {"head": {"kind": "linear", "depths": 3}}}),
        (
            {"stages": [{"optimizer": "sgd"}]},
            "stages.0.optimizer.momentum",
            0.5,
            {"stages": [{"optimizer": {"name": "sgd", "momentum": 0.5}}]},
        ),
        (
            {"stages": [{"train": {"blocks": [1]}}]},
            "stages.0.train.last",
            2,
            {"stages": [{"train": {"last": 2}}]},
        ),
        (
            {"stages": [{"train": "head"}]},
            "stages.0.train.kind",
            "all",
            {"stages": [{"train": {"kind": "all"}}]},
        ),
    ],
)
def test_a_value_is_set_where_its_path_leads(values, path, value, expected):
    assert with_value(values, path, value) == expected


def test_the_values_given_are_not_changed():
    values = {"stages": [{"lr": 1}]}
    with_value(values, "stages.0.lr", 2)
    assert values == {"stages": [{"lr": 1}]}


def test_a_section_opens_up():
    values = {"model": ModelSection(), "stages": (Stage(name="one", train=AllPolicy()),)}
    changed = with_value(with_value(values, "model.drop_rate", 0.1), "stages.0.lr", 0.2)
    recipe = Recipe.read(changed)
    assert (recipe.model.drop_rate, recipe.stages[0].lr) == (0.1, 0.2)


def test_the_stages_of_a_recipe_without_any_can_be_set():
    assert with_value({}, "stages.0.name", "one")["stages"][0]["name"] == "one"


@pytest.mark.parametrize(
    ("entries", "there"), [([], "no entry"), ([{}], "1 entry, numbered 0"), ([{}, {}], "2 entries")]
)
def test_a_list_without_the_entry_says_what_it_has(entries, there):
    with pytest.raises(RecipeError, match=f"stages has {there}"):
        with_value({"stages": entries}, "stages.7.lr", 3)


def test_every_choice_is_described_with_its_value_and_its_reason(resolved):
    described = describe_choices(resolved())
    assert described["stages.1.epochs"] == "21 (21 epochs of 19 steps make 399 steps, near 400)"
    assert described["runtime.device"] == "cpu (auto: it is there)"


def test_complete_values_hold_every_field():
    assert set(to_values(Recipe(), is_complete=True)) == set(Recipe.model_fields)


def test_short_values_hold_what_departs():
    stages = [{"name": "head", "train": "head", "solver": "probe"}]
    assert to_values(Recipe(seed=4)) == {
        "schema_version": 1,
        "name": "custom",
        "seed": 4,
        "stages": stages,
    }
