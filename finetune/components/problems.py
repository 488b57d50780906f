"""pydantic's errors as problems that a person can act on: a place, a sentence, a nearest name.

The one border at which validation errors are translated. A validator of ours may itself raise a
RecipeError whose paths are relative to the value that it checks; they are spliced in here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from finetune.errors import Problem, RecipeError, nearest

__all__ = ["did_you_mean", "find_problems", "show_value"]

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}
_LIMITS = {
    "greater_than": ("must be greater than", "gt"),
    "greater_than_equal": ("must be at least", "ge"),
    "less_than": ("must be less than", "lt"),
    "less_than_equal": ("must be at most", "le"),
}
_ABSENT = object()
_MAX_SHOWN = 60  # characters of a value that a message repeats


def find_problems(
    error: ValidationError, model: type[BaseModel], values: object
) -> tuple[Problem, ...]:
    """Translate all errors of a section, in their order, one problem for each place.

    Args:
        error: What validating `values` as `model` raised.
        model: The section; its field names are what a misspelt one is compared with.
        values: What was validated; tells the places in it from the labels of pydantic's unions.
    """
    places: dict[str, list[Any]] = {}
    for item in error.errors(include_url=False):
        if item["type"] == "too_short" and item["input"]:
            continue  # its entries are wrong; that it is then empty is no problem of its own
        place = ".".join(_place(item, values))
        places.setdefault(place, []).append(item)
    return tuple(
        problem for place, items in places.items() for problem in _explain(place, items, model)
    )


def did_you_mean(name: str, allowed: Sequence[str]) -> str | None:
    """Give the hint with the nearest allowed name; None where none is close.

    >>> did_you_mean("epoch", ["epochs", "lr"])
    'did you mean epochs?'
    """
    near = nearest(name, allowed)
    return f"did you mean {near}?" if near else None


def show_value(value: object) -> str:
    """Show a value in a message, as YAML has it, in one short line.

    >>> show_value(None), show_value(True), show_value("abc"), show_value({"a": 1})
    ('nothing', 'true', "'abc'", 'a mapping')
    """
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str | int | float):
        text = repr(value)
        return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
    return f"an object of class {type(value).__name__}"


def _place(item: Any, values: object) -> list[str]:
    """Follow an error's location through the values; what leads nowhere is a union's label."""
    names_a_key = item["type"] in ("missing", "extra_forbidden")
    parts, here = [], values
    for position, part in enumerate(item["loc"]):
        child = _child(here, part)
        is_named = names_a_key and position == len(item["loc"]) - 1
        if child is not _ABSENT or is_named:
            parts.append(str(part))
            here = child
    return parts


def _child(value: object, part: str | int) -> object:
    """Give what a key or an index leads to."""
    if isinstance(value, Mapping):
        return value.get(part, _ABSENT)
    if isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
        return value[part]
    return _ABSENT


def _explain(place: str, items: list[Any], model: type[BaseModel]) -> Iterator[Problem]:
    """Explain the errors of one place; of a union, what fits best or all that is allowed."""
    mismatches = [item for item in items if item["type"] in (*_EXPECTED, "literal_error")]
    for item in items:
        foreign = item.get("ctx", {}).get("error")
        if isinstance(foreign, RecipeError):
            yield from (_beneath(place, problem) for problem in foreign.problems)
        elif item not in mismatches:
            yield _explain_one(place, item, model)
    if len(mismatches) == len(items):
        yield _explain_mismatch(place, mismatches)


def _beneath(place: str, problem: Problem) -> Problem:
    """Give a problem whose path began at `place` its whole path."""
    path = ".".join(part for part in (place, problem.path) if part)
    return Problem(path, problem.message, line=problem.line, hint=problem.hint)


def _explain_mismatch(place: str, items: list[Any]) -> Problem:
    """Explain a value of the wrong type, or one that is not among those allowed."""
    value = items[0]["input"]
    literals = [name for item in items for name in _literals(item)]
    phrases = dict.fromkeys(_EXPECTED.get(item["type"], "") for item in items)
    covered = {"", "a whole number"} if "a number" in phrases else {""}
    expected = [phrase for phrase in phrases if phrase not in covered]
    hint = did_you_mean(value, literals) if isinstance(value, str) else None
    if not expected:
        message = f"unknown value {show_value(value)}; allowed: {', '.join(literals)}"
        return Problem(place, message, hint=hint)
    if value is None:
        return Problem(place, "is empty", hint="give it a value, or leave it out")
    if expected == ["text"] and isinstance(value, int | float):
        hint = f'write "{show_value(value)}", in quotes'
    wanted = " or ".join([*expected, *literals])
    return Problem(place, f"expected {wanted}, got {show_value(value)}", hint=hint)


def _literals(item: Any) -> list[str]:
    """List what a literal allows: pydantic joins it into one text."""
    expected = item.get("ctx", {}).get("expected", "") if item["type"] == "literal_error" else ""
    return [quoted or plain for quoted, plain in re.findall(r"'([^']*)'|(-?\d+)", expected)]


def _explain_one(place: str, item: Any, model: type[BaseModel]) -> Problem:
    """Explain one error that is no wrong type."""
    kind, context = item["type"], item.get("ctx", {})
    shown = show_value(item["input"])
    if kind == "missing":
        return Problem(place, "is missing; it has no default")
    if kind == "extra_forbidden":
        name = str(item["loc"][-1])
        return Problem(place, f"unknown value {name!r}", hint=_name_hint(name, item["loc"], model))
    if kind in _LIMITS:
        words, key = _LIMITS[kind]
        return Problem(place, f"{words} {context[key]:.12g}, got {shown}")
    if kind == "finite_number":
        return Problem(place, f"must be a finite number, got {shown}")
    if kind in ("too_short", "string_too_short"):
        return Problem(place, "must not be empty")
    if kind == "value_error":
        return Problem(place, str(context["error"]))
    message = str(item["msg"])
    return Problem(place, f"{message[:1].lower()}{message[1:]}, got {shown}")


def _name_hint(name: str, loc: Sequence[str | int], model: type[BaseModel]) -> str:
    """Propose the place where this very name stands, else the nearest name, else all of them."""
    owner = model
    for part in loc[:-1]:
        inner = _sections_in(owner.model_fields[part].annotation) if isinstance(part, str) else []
        owner = inner[0] if inner else owner
    elsewhere = [path for path in _paths(model) if path.rpartition(".")[2] == name]
    if len(elsewhere) == 1:
        return f"did you mean {elsewhere[0]}?"
    known = list(owner.model_fields)
    return did_you_mean(name, known) or f"allowed: {', '.join(known)}"


def _paths(model: type[BaseModel]) -> Iterator[str]:
    """List the dotted paths of the values in the sections of a recipe, the first of a list."""
    for name, field in model.model_fields.items():
        place = f"{name}.0" if "tuple" in str(field.annotation) else name
        for section in _sections_in(field.annotation):
            yield from (f"{place}.{inner}" for inner in section.model_fields)


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    """List the sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections_in(inner)]
