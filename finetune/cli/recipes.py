"""`finetune recipes`: see, copy and check the files that say what a run does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Debug, Json, at_home, complete_recipe
from finetune.errors import FinetuneError, Problem, RecipeError

__all__ = ["recipes"]

recipes = typer.Typer(
    help="List, show, copy and check recipes: the files that say what a run does.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

_Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A recipe's name, as in ls.", autocompletion=complete_recipe
    ),
]


@recipes.callback(invoke_without_command=True)
def _help(context: typer.Context, debug: Debug = False) -> None:
    """List, show, copy and check recipes: the files that say what a run does."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@recipes.command("ls", short_help="List the recipes that ship with finetune.")
def list_all(json: Json = False, debug: Debug = False) -> None:
    """List the recipes that ship with finetune, with what each is for."""
    from finetune.cli.render import Screen, print_json
    from finetune.recipe.builtin import list_recipes

    found = list_recipes()
    if json:
        print_json([{"name": one.name, "summary": one.summary} for one in found])
        return
    Screen(sys.stdout).entries([(one.name, one.summary) for one in found])


@recipes.command("show")
def show(name: _Name, debug: Debug = False) -> None:
    """Write a recipe on stdout, with its comments."""
    sys.stdout.write(_read(name))


@recipes.command("copy", short_help="Copy a recipe to a file, to change it.")
def copy(
    name: _Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write it.", callback=at_home)
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
    debug: Debug = False,
) -> None:
    """Copy a recipe to a file, to change it and run it with --recipe FILE.

    Example: finetune recipes copy default my.yaml
    """
    from finetune.runtime.files import write_text

    text = _read(name)
    if file.is_dir():
        raise FinetuneError(f"{file} is a folder", hint=f"name a file: {file / name}.yaml")
    if file.exists() and not overwrite:
        raise FinetuneError(f"{file} exists", hint="choose another FILE, or add --overwrite")
    write_text(file, text)
    print(f"{file} written\nnext: finetune run --recipe {file} --data DIR", file=sys.stderr)


@recipes.command("check", short_help="Check a recipe whole; trains nothing.")
def check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A recipe's file or name.", autocompletion=complete_recipe
        ),
    ],
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a recipe whole: every value, the optimisers, the transforms; trains nothing.

    All problems are told at once, by file and line; the exit code is then 2.
    """
    problems = _find_problems(file)
    if json:
        from finetune.cli.render import print_json

        print_json({"file": file, "problems": [_as_json(problem) for problem in problems]})
        if problems:
            raise typer.Exit(RecipeError.exit_code)
        return
    if problems:
        raise RecipeError(
            problems, source=file, hint="finetune recipes schema describes every value"
        )
    print(f"{file}: nothing wrong", file=sys.stderr)


@recipes.command("schema")
def schema(debug: Debug = False) -> None:
    """Write the JSON schema of recipes on stdout, for editors."""
    from finetune.cli.render import print_json
    from finetune.recipe.reference import json_schema

    print_json(json_schema())


def _read(name: str) -> str:
    """Read the text of a recipe that ships with the package."""
    from finetune.recipe.builtin import find_recipe

    return find_recipe(name).read_text(encoding="utf-8")


def _find_problems(file: str) -> list[Problem]:
    """Find all problems of a recipe: of its values, or else of names that timm and others own."""
    from finetune.recipe.check import find_foreign_problems
    from finetune.recipe.load import load_recipe, locate

    try:
        recipe = load_recipe(file)
    except RecipeError as error:
        return list(error.problems)
    return locate(find_foreign_problems(recipe), source=file)


def _as_json(problem: Problem) -> dict[str, object]:
    """Give a problem as an object."""
    return {
        "path": problem.path,
        "line": problem.line,
        "message": problem.message,
        "hint": problem.hint,
    }
