"""Arguments of the two faces, merged into a recipe: one vocabulary for flags and keywords.

An argument that is not given (None) leaves the recipe's value. Both faces call this, so that the
command line, YAML and Python give equal recipes.
"""

from pathlib import Path

from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe
from finetune.recipe.values import to_values, with_value

__all__ = ["with_arguments"]

_PLACES = {
    "backbone": "model.backbone",
    "weights": "model.weights",
    "pretrained": "model.pretrained",
    "data": "data.path",
    "exclude": "data.exclude",
    "split": "data.split",
    "device": "runtime.device",
    "seed": "seed",
}


def with_arguments(recipe: Recipe, **given: str | Path | int | bool | None) -> Recipe:
    """Put arguments into a recipe.

    Args:
        recipe: The recipe to start from; it is not changed.
        **given: `backbone`, `weights`, `pretrained`, `data`, `exclude`, `split`, `device`, `seed`;
            None is not given.

    Raises:
        RecipeError: A value is out of range.
    """
    values = to_values(recipe)
    for name, value in given.items():
        if value is not None:
            plain = str(value) if isinstance(value, Path) else value
            values = with_value(values, _PLACES[name], plain)
    if recipe.data.listed and given.get("data") is not None:
        values = with_value(values, "data.listed", False)
    return load_recipe(values)
