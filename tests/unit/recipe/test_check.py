"""Names that belong to timm and albumentations are checked before a run, all at once."""

import pytest

from finetune.components import policies
from finetune.components.optimizers import OptimizerSection
from finetune.errors import MissingExtraError
from finetune.recipe.check import find_foreign_problems, require_extras
from finetune.recipe.load import load_recipe, parse_recipe

TEXT = """\
augment:
  kind: albumentations
  transforms: [HorizontalFlp]
stages:
  - {name: one, train: all, optimizer: sgd}
  - name: two
    train: all
    optimizer: {name: adamww}
  - {name: three, train: all, optimizer: {name: sgd, options: {nestrov: true}}}
"""


def test_nothing_is_wrong_with_the_recipes_that_ship_with_the_package():
    assert find_foreign_problems(load_recipe("default")) == []


def test_unknown_names_are_told_by_their_places():
    problems = find_foreign_problems(parse_recipe(TEXT, source="x"))
    assert {problem.path: problem.hint for problem in problems} == {
        "stages.1.optimizer": "did you mean adamw?",
        "stages.2.optimizer.options.nestrov": "did you mean nesterov?",
        "augment.transforms.0": "did you mean HorizontalFlip?",
    }


def test_a_probe_has_no_optimiser_to_look_up(monkeypatch):
    asked = []
    monkeypatch.setattr(OptimizerSection, "check", asked.append)
    assert find_foreign_problems(load_recipe("probe")) == []
    assert asked == []


def test_our_own_optimiser_is_there_and_is_not_looked_up(monkeypatch):
    OptimizerSection().check()
    asked = []
    monkeypatch.setattr(OptimizerSection, "check", asked.append)
    assert find_foreign_problems(load_recipe("default")) == []
    assert asked == []


LORA = "stages:\n  - {name: one, train: {lora: {rank: 4}}}\n"


def test_a_recipe_without_adapters_needs_no_extra(monkeypatch):
    asked = []
    monkeypatch.setattr(policies, "find_spec", asked.append)
    require_extras(load_recipe("default"))
    assert asked == []


def test_a_recipe_of_adapters_needs_the_library_that_makes_them(monkeypatch):
    recipe = parse_recipe(LORA, source="x")
    require_extras(recipe)
    monkeypatch.setattr(policies, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"train: \{lora: …\} needs a package"):
        require_extras(recipe)
