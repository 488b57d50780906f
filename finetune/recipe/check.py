"""What only the libraries behind the components can tell of a recipe: names that are theirs.

Loading a recipe imports neither timm nor albumentations; this does.
"""

from finetune.components.optimizers import OptimizerSection
from finetune.components.policies import lora_of
from finetune.errors import Problem, RecipeError
from finetune.recipe.schema import Recipe

__all__ = ["find_foreign_problems", "require_extras"]


def find_foreign_problems(recipe: Recipe) -> list[Problem]:
    """Find optimisers and transforms that their libraries do not have, or not with these options.

    Returns:
        All problems by dotted path, without lines; empty where there is none.
    """
    problems: list[Problem] = []
    for index, stage in enumerate(recipe.stages):
        # timm's optimisers take a second to import, and ours is known to be one of them.
        if stage.solver == "probe" or stage.optimizer == OptimizerSection():
            continue
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


def require_extras(recipe: Recipe) -> None:
    """Check that the optional dependencies which a recipe needs are installed.

    Raises:
        MissingExtraError: One is not; the hint is the command that installs it.
    """
    for stage in recipe.stages:
        settings = lora_of(stage.train)
        if settings is not None:
            settings.check()
    for tracker in recipe.track.to:
        tracker.check()
