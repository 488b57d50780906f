"""Recipes as plain nested values, and values put into them by dotted path: pure, no YAML here."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from finetune.components.component import list_members
from finetune.components.policies import HeadPolicy, Policy
from finetune.components.problems import show_value
from finetune.components.section import Section
from finetune.errors import Problem, RecipeError
from finetune.recipe.schema import Recipe, ResolvedRecipe
from finetune.recipe.stages import Stage

__all__ = ["describe_choices", "to_values", "with_value"]

_ALWAYS = ("schema_version", "name", "stages")  # of a recipe, also where they equal the defaults


def to_values(
    recipe: Recipe, *, is_complete: bool = False, mode: Literal["python", "json"] = "python"
) -> dict[str, Any]:
    """Give the values of a recipe as nested mappings, lists and plain values.

    Args:
        recipe: A recipe; of a resolved one, the recipe that repeats it.
        is_complete: Give all values; otherwise only what departs from the defaults.
        mode: Whether objects that came from Python stay objects, or are written by their names.

    Returns:
        What `Recipe.read` makes an equal recipe from, but for such names.
    """
    plain = recipe.to_recipe() if isinstance(recipe, ResolvedRecipe) else recipe
    values = plain.model_dump(mode=mode)
    if is_complete:
        return values
    stage_defaults = Stage(name="default", train=HeadPolicy()).model_dump(mode=mode)
    short = _departures(values, Recipe().model_dump(mode=mode), always=_ALWAYS)
    short["stages"] = [
        _departures(stage, stage_defaults, always=("name", "train")) for stage in values["stages"]
    ]
    return short


def describe_choices(recipe: ResolvedRecipe) -> dict[str, str]:
    """Give each automatic value with its reason, by dotted path: `8 (400 steps of batch 32)`."""
    values = to_values(recipe, is_complete=True, mode="json")
    return {path: f"{_get(values, path)} ({reason})" for path, reason in recipe.reasons.items()}


def with_value(values: Any, path: str, value: Any) -> Any:
    """Give a copy of nested values in which one value is set.

    A word on the way makes room for what it stands for (`head: linear` for `{kind: linear}`),
    another `kind` leaves nothing of the former one, and a mapping that is missing is made: of a
    component, what it is by default.

    Raises:
        RecipeError: The path leads into a list at no entry, or into a value that holds none.
    """
    if isinstance(values, Mapping) and path.startswith("stages.") and "stages" not in values:
        values = {**values, "stages": to_values(Recipe())["stages"]}
    return _set(values, path.split("."), value, walked=())


def _departures(
    values: Mapping[str, Any], defaults: Mapping[str, Any], *, always: Sequence[str] = ()
) -> dict[str, Any]:
    """Keep what differs from the defaults; a component is kept whole."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name)
        if name not in always and value == default:
            continue
        is_section = isinstance(value, dict) and isinstance(default, dict) and "kind" not in value
        kept[name] = _departures(value, default or {}) if is_section else value
    return kept


def _get(here: Any, path: str) -> Any:
    """Find the value at the end of a path that is there."""
    for part in path.split("."):
        here = here[int(part)] if isinstance(here, list) else here[part]
    return here


def _set(here: Any, parts: Sequence[str], value: Any, *, walked: tuple[str, ...]) -> Any:
    """Set a value at the end of a path that begins here."""
    if not parts:
        return value
    part, rest = parts[0], parts[1:]
    further = (*walked, part)
    if isinstance(here, list | tuple):
        index = _index(here, part, walked)
        return [
            _set(item, rest, value, walked=further) if position == index else item
            for position, item in enumerate(here)
        ]
    room = _room(here, part, walked)
    if part == "kind" and not rest and room.get("kind") != value:
        return {"kind": value}
    return {**room, part: _set(room.get(part), rest, value, walked=further)}


def _index(here: Sequence[Any], part: str, walked: tuple[str, ...]) -> int:
    """Read the number of a list's entry."""
    if part.isdecimal() and int(part) < len(here):
        return int(part)
    place = ".".join(walked)
    names = [item.get("name") for item in here if isinstance(item, Mapping)]
    hint = f"did you mean {place}.{names.index(part)}?" if part in names else None
    there = {0: "no entry", 1: "1 entry, numbered 0"}.get(
        len(here), f"{len(here)} entries, numbered 0 to {len(here) - 1}"
    )
    message = f"there is no {place}.{part}: {place} has {there}"
    raise RecipeError([Problem(".".join((*walked, part)), message, hint=hint)])


def _room(here: Any, part: str, walked: tuple[str, ...]) -> Mapping[str, Any]:
    """Give the mapping that a value is, or stands for, to set one value in."""
    is_policy = bool(walked) and walked[-1] == "train"
    if is_policy and "kind" not in list_members(Policy).get(part, Section).model_fields:
        return {}
    if isinstance(here, Mapping):
        return here
    if isinstance(here, Section):
        return here.model_dump()
    if isinstance(here, str) and walked:
        return {"name" if walked[-1] == "optimizer" else "kind": here}
    if here is None:
        return _default_component(walked)
    place = ".".join(walked)
    message = f"{place} is {show_value(here)}; nothing can be set in it"
    raise RecipeError([Problem(place, message)])


def _default_component(walked: Sequence[str]) -> Mapping[str, Any]:
    """Give the component that stands where a recipe names none; nothing where it is a section."""
    here: Any = Recipe().model_dump()
    for part in walked:
        here = here.get(part) if isinstance(here, Mapping) else None
    return here if isinstance(here, Mapping) and "kind" in here else {}
