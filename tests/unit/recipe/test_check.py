"""Names that belong to timm and albumentations are checked before a run, all at once."""

from finetune.recipe.check import find_foreign_problems
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
