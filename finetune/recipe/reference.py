"""The reference of recipes, generated from the schema: for editors as JSON, for people as Markdown.

Both are made of the same JSON schema, so that the documentation cannot say what the check does not.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from finetune.recipe.schema import Recipe

__all__ = ["json_schema", "markdown_reference"]

Schema = Mapping[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SECTIONS_OF_A_DOCSTRING = re.compile(r"\n\n?(Args|Attributes|Example|Raises|Returns):\n")
_TYPES = {
    "boolean": "true or false",
    "integer": "whole number",
    "null": "null",
    "number": "number",
    "object": "mapping",
    "string": "text",
}
_LIMITS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}
_HEAD = """# Recipe reference

Every value that a recipe can hold, generated from the schema. All of them may be left out, but for
those marked *required*. `auto` is chosen when a run starts, from the data, the backbone and the
machine; the choice and its reason stand in the run's `recipe.yaml`.

A component is written as a word where its defaults will do (`head: linear`), or as a mapping
(`head: {kind: mlp, hidden: 256}`). An editor checks recipes with the output of
`finetune recipes schema`.
"""


def json_schema() -> dict[str, Any]:
    """Give the JSON schema of recipes, which editors complete and check YAML with."""
    schema = Recipe.model_json_schema()
    _tidy(schema)
    return {"$schema": _DIALECT, **schema, "title": "Recipe of finetune"}


def _tidy(node: Any) -> None:
    """Leave of docstrings what a reader of a recipe needs, and ask every component for its kind."""
    if isinstance(node, dict) and "properties" in node:
        node["description"] = _SECTIONS_OF_A_DOCSTRING.split(node["description"])[0].strip()
        if "kind" in node["properties"]:
            node["required"] = ["kind", *node.get("required", [])]
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for value in inner:
        _tidy(value)


def markdown_reference() -> str:
    """Write the reference of every value: path, type, default, range and meaning."""
    schema = json_schema()
    known = schema["$defs"]
    parts = [_HEAD, "## The recipe\n", _table(schema, "", known)]
    for name, value in schema["properties"].items():
        parts += _describe(name, value, known)
    return "\n".join(parts)


def _describe(
    path: str, value: Schema, known: Schema, *, is_in_component: bool = False
) -> Iterator[str]:
    """Describe the sections that a value may hold, and what is within them."""
    if value.get("type") == "array":
        path, value = f"{path}.0", value["items"]
    forms = [_follow(form, known) for form in (value, *value.get("anyOf", []))]
    level = "####" if is_in_component else "###" if _is_component(value) else "##"
    for section in (form for form in forms if "properties" in form):
        word = _form(section) if _is_component(value) else ""
        yield f"{level} `{path}: {word}`\n" if word else f"{level} `{path}`\n"
        yield f"{_one_line(section['description'])}\n"
        if set(section["properties"]) != {"kind"}:
            yield _table(section, path, known)
        for name, inner in section["properties"].items():
            within = is_in_component or _is_component(value)
            yield from _describe(f"{path}.{name}", inner, known, is_in_component=within)


def _is_component(value: Schema) -> bool:
    """Whether a value is one of several sections, or a word that stands for one."""
    return any("properties" in form for form in value.get("anyOf", []))


def _form(section: Schema) -> str:
    """Write how a member of a component is named: by its kind, or by its first value."""
    properties = section["properties"]
    if "kind" in properties:
        return str(properties["kind"]["const"])
    required = section.get("required", [])
    return f"{{{required[0]}: …}}" if required else ""


def _table(section: Schema, path: str, known: Schema) -> str:
    """Write the table of a section's values."""
    rows = ["| path | type | default | range | meaning |", "|---|---|---|---|---|"]
    for name, value in section["properties"].items():
        if name == "kind":
            continue
        is_required = name in section.get("required", [])
        cells = [
            f"`{path}.{name}`" if path else f"`{name}`",
            _type(value, known),
            "*required*" if is_required else f"`{_default(value.get('default'))}`",
            _range(value),
            _one_line(value.get("description", "")),
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _type(value: Schema, known: Schema) -> str:
    """Say in words what a value may be."""
    if _is_component(value):
        forms = [_form(form) for form in value["anyOf"] if "properties" in form]
        words = [f"`{form}`" for form in forms if form]
        return ", ".join(words) or "text or mapping"
    if "anyOf" in value:
        return " or ".join(_type(form, known) for form in value["anyOf"])
    if "$ref" in value:
        return "mapping"
    if "enum" in value or "const" in value:
        return ", ".join(f"`{name}`" for name in value.get("enum", [value.get("const")]))
    if value["type"] == "array":
        return f"list of {_type(value['items'], known)}"
    return _TYPES[value["type"]]


def _range(value: Schema) -> str:
    """Write the limits of a value."""
    forms = [value, *value.get("anyOf", []), value.get("items", {})]
    limits = [
        f"{sign} {form[key]:,.12g}"
        for form in forms
        for key, sign in _LIMITS.items()
        if key in form
    ]
    if value.get("minItems"):
        limits.append(f"at least {value['minItems']}")
    return ", ".join(limits)


def _default(value: Any) -> str:
    """Write a default as YAML has it; of a section, the word that names it."""
    if isinstance(value, Mapping):
        return str(value.get("kind") or value.get("name") or "{…}") if value else "{}"
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        return "[" + ", ".join(_default(item) for item in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _follow(value: Schema, known: Schema) -> Schema:
    """Give what a reference stands for, else the value itself."""
    target: Schema = known[value["$ref"].rpartition("/")[2]] if "$ref" in value else value
    return target


def _one_line(text: str) -> str:
    """Take the line breaks out of a docstring."""
    return " ".join(text.split())
