"""Flags that several commands share, and what the shell completes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.border import UsageError
from finetune.errors import FinetuneError
from finetune.runtime.paths import home_path

__all__ = [
    "Data",
    "Debug",
    "Json",
    "Model",
    "Workers",
    "at_home",
    "complete_backbone",
    "complete_recipe",
    "require_file",
]

_MAX_COMPLETIONS = 200  # a shell that lists more asks the person whether it should


def complete_backbone(incomplete: str) -> list[str]:
    """Complete the name of a backbone; after a dot also the tag of its weights."""
    from finetune.model.facts import load_facts

    if "." in incomplete:
        architecture = incomplete.partition(".")[0]
        return [
            f"{facts.name}.{tag.name}"
            for facts in load_facts()
            for tag in facts.tags
            if facts.name == architecture
        ]
    names = [facts.name for facts in load_facts() if facts.name.startswith(incomplete)]
    return names[:_MAX_COMPLETIONS]


def complete_recipe(incomplete: str) -> list[tuple[str, str]]:
    """Complete the name of a recipe that ships with the package, with what it is for."""
    from finetune.recipe.builtin import list_recipes

    return [
        (recipe.name, recipe.summary)
        for recipe in list_recipes()
        if recipe.name.startswith(incomplete)
    ]


def at_home(path: Path | None) -> Path | None:
    """Give a path with `~` as the home folder: the callback of options that name one."""
    return None if path is None else home_path(path)


def require_file(out: Path, endings: Sequence[str]) -> None:
    """Refuse an `--out` that cannot be written or has another ending, before minutes of work.

    Raises:
        UsageError: Its ending is none of these, in small letters; one that would do is the hint.
        FinetuneError: It is a folder, or cannot be written.
    """
    from finetune.runtime.files import require_writable

    if out.suffix.lower() not in endings:
        known = " or ".join(endings)
        fitting = out.with_suffix(endings[0]) if out.name else f"FILE{endings[0]}"
        raise UsageError(f"--out {out} must end in {known}", hint=f"--out {fitting}")
    if out.is_dir():
        raise FinetuneError(f"{out} is a folder, not a file", hint="choose another --out")
    require_writable(out)


Data = Annotated[
    str | None,
    typer.Option("--data", metavar="DIR|CSV", help="Photos in folders by class, or a CSV."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Json = Annotated[
    bool, typer.Option("--json", help="Write the result as JSON on stdout, and nothing else there.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=0,
        help="Processes that decode; 1 is a thread, 0 is neither; by default by cores and images.",
    ),
]
Model = Annotated[
    str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or the folder of a saved model.")
]
