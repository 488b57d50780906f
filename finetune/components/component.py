"""How a recipe names one of several sections: by a word, by a mapping, or, in Python, by an object.

`Annotated[A | B | C, Component()]` at the foot of a file is the table of everything that exists.
A member is named by its `kind`, or by its first value where it has none (`{last: 2}`). A member of
kind `python` holds an object that a Python user passed; no file can name it.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, get_args

from pydantic import GetCoreSchemaHandler, PlainValidator

from finetune.components.problems import did_you_mean, show_value
from finetune.components.section import Section
from finetune.errors import Problem, RecipeError

__all__ = ["Component", "Forms", "PythonObject", "class_name", "list_members"]

Members = dict[str, type[Section]]

_PYTHON = "python"


@dataclass(frozen=True)
class Component:
    """Reads a union of sections; an annotation that stands behind the union.

    Attributes:
        holds: The value of the member of kind `python` that holds an object from Python; None
            where the union has no such member.
    """

    holds: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Give pydantic the reader, and for a file's schema the words and the mappings."""
        members = list_members(source)
        whole = tuple(name for name in _words(members) if _is_whole(members[name]))
        forms = Forms([member for name, member in members.items() if name != _PYTHON], words=whole)
        read = partial(_read, members=members, holds=self.holds)
        reader = PlainValidator(read, json_schema_input_type=Annotated[Any, forms])
        # Any, and not the union: what is read is written as what it is, by its own serializer.
        return reader.__get_pydantic_core_schema__(Any, handler)


@dataclass(frozen=True)
class Forms:
    """What a file may write for a component, in the JSON schema for editors; an annotation.

    The members stand in it whole: some versions of pydantic lose references from here.

    Attributes:
        members: The sections whose mappings may be written.
        words: The words that may be written; None for any text.
    """

    members: Sequence[type[Section]]
    words: tuple[str, ...] | None = None

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """Give pydantic the JSON schema."""
        word: dict[str, Any] = {"type": "string"}
        if self.words is not None:
            word["enum"] = list(self.words)
        return {"anyOf": [word, *map(_write_out, self.members)]}


@dataclass(frozen=True)
class PythonObject:
    """Takes an object with a verb; an annotation that stands behind its Protocol.

    Attributes:
        what: What it is, in words: `a freeze policy`.
        verb: The method that it must have.
        place: The keyword that it is passed as.
    """

    what: str
    verb: str
    place: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        """Give pydantic the check."""
        checker = PlainValidator(self._check, json_schema_input_type=None)
        return checker.__get_pydantic_core_schema__(Any, handler)

    def _check(self, value: Any) -> Any:
        """Refuse what a file can hold, a class, and an object without the verb."""
        if value is None or isinstance(value, str | bool | int | float | Mapping | list | tuple):
            raise ValueError(
                f"{self.what} made in Python cannot be named in a file; pass it as {self.place}="
            )
        if inspect.isclass(value):
            raise ValueError(f"{value.__name__} is a class; pass an object, {value.__name__}()")
        if not callable(getattr(value, self.verb, None)):
            shown = show_value(value)
            raise ValueError(f"{shown} is not {self.what}: it has no method {self.verb}")
        return value


def list_members(union: Any) -> Members:
    """List the members of a component's union by the names that a recipe gives them.

    Args:
        union: `A | B | C`, or the same annotated.
    """
    inner = get_args(union)
    if not all(inspect.isclass(member) for member in inner):
        return list_members(inner[0])
    return {_name(member): member for member in inner}


def class_name(value: object) -> str:
    """Name an object from Python by the module and name of its class."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _write_out(member: type[Section]) -> Any:
    """Give the JSON schema of a member with the sections within it in their places."""
    schema = member.model_json_schema()
    return _without_references(schema, schema.pop("$defs", {}))


def _without_references(node: Any, known: Mapping[str, Any]) -> Any:
    """Put what a reference stands for in its place; what stands beside it has precedence."""
    if isinstance(node, list):
        return [_without_references(value, known) for value in node]
    if not isinstance(node, dict):
        return node
    target = known[node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
    rest = {key: value for key, value in node.items() if key != "$ref"}
    return {key: _without_references(value, known) for key, value in {**target, **rest}.items()}


def _name(member: type[Section]) -> str:
    """Give a member's name: its kind, or its first value."""
    kind = member.model_fields.get("kind")
    return str(kind.default) if kind else next(iter(member.model_fields))


def _is_whole(member: type[Section]) -> bool:
    """Whether its name alone makes the member: every value has a default."""
    return not any(field.is_required() for field in member.model_fields.values())


def _words(members: Members) -> list[str]:
    """List the names that a file may write as a word or a `kind`."""
    return [
        name
        for name, member in members.items()
        if "kind" in member.model_fields and name != _PYTHON
    ]


def _keys(members: Members) -> list[str]:
    """List the names that a file writes as the key of a mapping."""
    return [name for name, member in members.items() if "kind" not in member.model_fields]


def _read(value: Any, *, members: Members, holds: str | None) -> Any:
    """Make the member that a value names."""
    if type(value) in members.values():
        return value
    if isinstance(value, str):
        return _read_kind({"kind": value}, members, place="")
    if isinstance(value, Mapping):
        if "kind" in value:
            return _read_kind(value, members, place="kind")
        return _read_keyed(value, members)
    is_plain = value is None or isinstance(value, bool | int | float | list | tuple)
    if holds is None or is_plain:
        raise _refusal("", f"expected {_forms(members)}, got {show_value(value)}")
    try:
        return members[_PYTHON].read({holds: value})
    except RecipeError as error:
        raise RecipeError([Problem("", problem.message) for problem in error.problems]) from error


def _read_kind(value: Mapping[str, Any], members: Members, *, place: str) -> Section:
    """Make the member that `kind` names."""
    name = value["kind"]
    if name in _keys(members):
        raise _refusal(place, f"{name} wants a value", hint=f"write {{{name}: …}}")
    is_bare = name == _PYTHON and len(value) == 1
    if not isinstance(name, str) or name not in members or is_bare:
        raise _unknown(name, members, place=place)
    return members[name].read(value)


def _read_keyed(value: Mapping[str, Any], members: Members) -> Section:
    """Make the member that the keys of a mapping without `kind` name."""
    keys = _keys(members)
    named = [key for key in value if key in keys]
    if named:
        return members[named[0]].read(value)
    if not keys:
        raise _refusal("kind", f"is missing; allowed: {_forms(members)}")
    first = next(iter(value), None)
    if first in members:
        raise _refusal("", f"{first} takes no value", hint=f"write {first}")
    raise _unknown(first, members, place="")


def _forms(members: Members) -> str:
    """List what a file may write."""
    return ", ".join([*_words(members), *(f"{{{key}: …}}" for key in _keys(members))])


def _unknown(name: object, members: Members, *, place: str) -> RecipeError:
    """Make the error for a name that no member has."""
    known = [*_words(members), *_keys(members)]
    hint = did_you_mean(name, known) if isinstance(name, str) else None
    message = f"unknown value {show_value(name)}; allowed: {_forms(members)}"
    return _refusal(place, message, hint=hint)


def _refusal(place: str, message: str, *, hint: str | None = None) -> RecipeError:
    """Make an error of one problem."""
    return RecipeError([Problem(place, message, hint=hint)])
