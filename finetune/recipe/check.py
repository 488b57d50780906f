"""What only the libraries behind the components can tell of a recipe: names that are theirs.

Loading a recipe imports neither timm nor albumentations; this does.
"""

from finetune.errors import Problem, RecipeError
from finetune.recipe.schema import Recipe

__all__ = ["find_foreign_problems"]


def find_foreign_problems(recipe: Recipe) -> list[Problem]:
    """Find optimisers and transforms that their libraries do not have, or not with these options.

    Returns:
        All problems by dotted path, without lines; empty where there is none.
    """
    problems: list[Problem] = []
    for index, stage in enumerate(recipe.stages):
        try:
            stage.optimizer.check()
        except RecipeError as error:
            place = f"stages.{index}.optimizer"
            problems += [
                Problem(
                    found.path.replace("stages.optimizer", place, 1), found.message, hint=found.hint
                )
                for found in error.problems
            ]
    try:
        recipe.augment.check()
    except RecipeError as error:
        problems += error.problems
    return problems
