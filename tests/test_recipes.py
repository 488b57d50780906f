"""Each recipe that ships with the package loads, resolves and says what a person wants to know."""

import re
from pathlib import Path

import pytest

from finetune.components.policies import AllPolicy, HeadPolicy, LastPolicy
from finetune.recipe.builtin import list_recipes
from finetune.recipe.check import find_foreign_problems
from finetune.recipe.load import dump_recipe, load_recipe, parse_recipe
from finetune.recipe.resolve import resolve
from finetune.types import BackboneFacts, DataFacts, MachineFacts

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["default", "from-scratch", "gradual", "imbalanced", "probe", "small-data", "vit"]
FACTS = {
    "data": DataFacts(600, 100, (300, 300)),
    "backbone": BackboneFacts("conv", True, 7, 19),
    "machine": MachineFacts("cpu", "there is no other", False, 2),
}


def text_of(name):
    return (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def header_of(name):
    return [line for line in text_of(name).splitlines() if line.startswith("#")]


def test_seven_recipes_ship_with_the_package():
    assert [listing.name for listing in list_recipes()] == NAMES
    assert len(list((ROOT / "recipes").iterdir())) == len(NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_bears_the_name_of_its_file(name):
    assert load_recipe(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_has_10_to_25_lines_of_at_most_100_columns(name):
    lines = text_of(name).splitlines()
    assert 10 <= len(lines) <= 25
    assert max(len(line) for line in lines) <= 100


@pytest.mark.parametrize("name", NAMES)
def test_a_header_says_what_it_is_for_on_what_hardware_what_score_and_the_command(name):
    header = "\n".join(header_of(name))
    assert re.match(r"# [A-Z].{40,}[.:]\n", header)
    assert re.search(r"^# Hardware  \S", header, re.MULTILINE)
    assert re.search(r"^# Score     docs/benchmarks/", header, re.MULTILINE)
    assert f"# Command   finetune run --data photos/ --recipe {name}" in header


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_resolves_and_what_it_resolves_to_loads_again(name):
    recipe = load_recipe(name, overrides=["data.path=photos"])
    resolved = resolve(recipe, **FACTS)
    assert parse_recipe(dump_recipe(resolved), source="x") == resolved.to_recipe()
    assert resolved.name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_nothing_that_the_libraries_do_not_have(name):
    assert find_foreign_problems(load_recipe(name)) == []


def test_default_is_a_probe_and_then_everything_for_as_long_as_the_data_ask():
    head, full = load_recipe("default").stages
    assert (head.name, head.train, head.solver) == ("head", HeadPolicy(), "probe")
    assert (full.name, full.train, full.solver) == ("full", AllPolicy(), "gradient")
    assert (full.epochs, full.lr, full.layer_decay) == ("auto", 1e-4, "auto")
    assert load_recipe("default").training.clip_norm == 1.0


def test_gradual_is_three_gradient_stages_of_whole_epochs():
    stages = load_recipe("gradual").stages
    assert [stage.name for stage in stages] == ["head", "last", "full"]
    assert [stage.train for stage in stages] == [HeadPolicy(), LastPolicy(last=2), AllPolicy()]
    assert {stage.solver for stage in stages} == {"gradient"}
    assert all(isinstance(stage.epochs, int) for stage in stages)
    assert all(stage.early_stopping is None for stage in stages)


def test_one_epoch_of_the_second_stage_of_gradual_means_something():
    recipe = load_recipe("gradual", overrides=["stages.1.epochs=1"])
    assert [stage.epochs for stage in recipe.stages] == [3, 1, 6]


def test_from_scratch_starts_without_pretrained_weights():
    recipe = load_recipe("from-scratch")
    assert recipe.model.pretrained is False
    assert [stage.solver for stage in recipe.stages] == ["gradient"]


@pytest.mark.parametrize("name", ["default", "imbalanced", "probe", "small-data", "vit"])
def test_every_other_recipe_begins_with_a_probe(name):
    assert load_recipe(name).stages[0].solver == "probe"
