"""`finetune backbones`: which backbones there are, from a table, in milliseconds."""

from __future__ import annotations

import re
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.border import UsageError
from finetune.cli.options import Debug, Json, complete_backbone
from finetune.errors import BackboneError, nearest

if TYPE_CHECKING:
    from finetune.model.facts import ArchitectureFacts

__all__ = ["backbones"]

_NARROW = 72  # columns of the terminal below which the last two columns are left out
_FACTORS = {"": 1, "K": 1_000, "M": 1_000_000, "B": 1_000_000_000, "G": 1_000_000_000}


def backbones(
    pattern: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            help="Part of a name, or a pattern with * and ?; with a dot it also matches tags.",
            autocompletion=complete_backbone,
        ),
    ] = "",
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Only those with pretrained weights.")
    ] = False,
    max_params: Annotated[
        str | None,
        typer.Option("--max-params", metavar="N", help="At most so many parameters: 10M, 500k."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List timm's backbones: size, input, pretrained weights, licence, and whether they are cached.

    Example: finetune backbones 'efficientnet*' --pretrained --max-params 10M
    """
    from finetune.model.facts import cached_repositories, cached_tags, load_facts

    limit = _parse_count(max_params) if max_params is not None else None
    found = [facts for facts in load_facts() if _matches(facts, pattern)]
    if not found:
        raise _no_match(pattern, [facts.name for facts in load_facts()])
    found = [facts for facts in found if limit is None or facts.num_parameters <= limit]
    if pretrained:
        found = [facts for facts in found if facts.tags]
    repositories = cached_repositories()
    cached = {facts.name: cached_tags(facts, repositories=repositories) for facts in found}
    if json:
        from finetune.cli.render import print_json

        print_json([_as_json(facts, cached[facts.name]) for facts in found])
    else:
        _show(found, cached)


def _matches(facts: ArchitectureFacts, pattern: str) -> bool:
    """Whether a pattern fits the name, or the name with one of its tags."""
    if not any(letter in pattern for letter in "*?["):
        pattern = f"*{pattern}*"
    pattern = pattern.lower()
    names = [facts.name, *(f"{facts.name}.{tag.name}" for tag in facts.tags if "." in pattern)]
    return any(fnmatchcase(name.lower(), pattern) for name in names)


def _no_match(pattern: str, names: list[str]) -> BackboneError:
    """Say that nothing fits, with the nearest name."""
    known = [name for name in names if not name.startswith("test_")]
    near = nearest(pattern.strip("*?").lower(), known)
    return BackboneError(
        f"no backbone matches {pattern!r}",
        hint=f"did you mean {near}?" if near else "finetune backbones lists all of them",
    )


def _parse_count(text: str) -> int:
    """Read a number of parameters: 10M, 5.3M, 500k, 25000000."""
    match = re.fullmatch(r"(\d+(?:[.]\d+)?|[.]\d+)\s*([KMBG]?)", text.strip().upper())
    if match is None:
        raise UsageError(f"--max-params {text} is no number", hint="write --max-params 10M or 500k")
    return round(float(match[1]) * _FACTORS[match[2]])


def _as_json(facts: ArchitectureFacts, cached: tuple[str, ...]) -> dict[str, Any]:
    """Give the object of one backbone; `licence` and `cached` are of the default weights."""
    default = facts.tags[0].name if facts.tags else None
    return {
        "name": facts.name,
        "num_parameters": facts.num_parameters,
        "input_size": list(facts.input_size),
        "pretrained_tags": [tag.name for tag in facts.tags],
        "licence": facts.licence,
        "cached": default in cached,
        "licences": {tag.name: tag.licence for tag in facts.tags},
        "cached_tags": list(cached),
    }


def _show(found: list[ArchitectureFacts], cached: dict[str, tuple[str, ...]]) -> None:
    """Write the table, and below it what its columns mean; a narrow terminal gets fewer."""
    from finetune.cli.render import Column, Screen, count, short_count

    screen = Screen(sys.stdout)
    columns = [
        Column("name", "left", is_shortened=True),
        Column("params"),
        Column("input"),
        Column("licence", "left"),
        Column("weights"),
        Column("cached", "left"),
    ]
    rows = [
        [
            facts.name,
            short_count(facts.num_parameters),
            _input_word(facts),
            (facts.licence or "not stated") if facts.tags else "-",
            str(len(facts.tags)) if facts.tags else "none",
            _cached_word(facts, cached[facts.name]),
        ]
        for facts in found
    ]
    kept = 4 if screen.width < _NARROW else len(columns)
    screen.table(columns[:kept], [row[:kept] for row in rows])
    noun = "backbone" if len(rows) == 1 else "backbones"
    Screen(sys.stderr).line(
        f"{count(len(rows))} {noun}; licence and cached are of the default weights, "
        "--json has all of them"
    )


def _input_word(facts: ArchitectureFacts) -> str:
    """Write the size of the input in pixels: one side of a square."""
    _, height, width = facts.input_size
    return str(height) if height == width else f"{height}x{width}"


def _cached_word(facts: ArchitectureFacts, cached: tuple[str, ...]) -> str:
    """Say whether the default weights are cached, or others."""
    if not cached:
        return ""
    return "yes" if cached[0] == facts.tags[0].name else f"{len(cached)} other"
