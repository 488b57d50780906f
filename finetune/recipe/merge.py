"""Arguments of the two faces, merged into a recipe: one vocabulary for flags and keywords.

An argument that is not given (None) leaves the recipe's value. Both faces call this, so that the
command line, YAML and Python give equal recipes.
"""

from pathlib import Path
from typing import Any

from finetune.recipe.load import load_recipe
from finetune.recipe.schema import Recipe

__all__ = ["with_arguments"]

_PLACES = {
    "backbone": ("model", "backbone"),
    "weights": ("model", "weights"),
    "pretrained": ("model", "pretrained"),
    "data": ("data", "path"),
    "device": ("runtime", "device"),
    "seed": ("seed",),
}


def with_arguments(recipe: Recipe, **given: str | Path | int | bool | None) -> Recipe:
    """Put arguments into a recipe.

    Args:
        recipe: The recipe to start from; it is not changed.
        **given: `backbone`, `weights`, `pretrained`, `data`, `device`, `seed`; None is not given.

    Raises:
        RecipeError: A value is out of range.
    """
    values: dict[str, Any] = recipe.model_dump(exclude_unset=True)
    for name, value in given.items():
        if value is None:
            continue
        *sections, key = _PLACES[name]
        place = values
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = str(value) if isinstance(value, Path) else value
    return load_recipe(values)
