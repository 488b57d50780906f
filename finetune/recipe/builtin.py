"""The recipes that ship with the package: files in `recipes/`, found wherever it is installed.

In a checkout they stand beside the package, in a wheel inside it.
"""

from dataclasses import dataclass
from pathlib import Path

from finetune.errors import Problem, RecipeError, nearest

__all__ = ["RecipeListing", "find_recipe", "list_recipes"]


@dataclass(frozen=True, slots=True)
class RecipeListing:
    """A recipe that ships with the package.

    Attributes:
        name: What `--recipe` takes.
        summary: What it is for, from the first line of its header.
        path: Its file.
    """

    name: str
    summary: str
    path: Path


def list_recipes() -> list[RecipeListing]:
    """List the recipes that ship with the package, by name."""
    return [
        RecipeListing(path.stem, _summary(path), path) for path in sorted(_folder().glob("*.yaml"))
    ]


def find_recipe(name: str) -> Path:
    """Find the file of a recipe by its name.

    Raises:
        RecipeError: There is none; the nearest name is told.
    """
    known = [path.stem for path in sorted(_folder().glob("*.yaml"))]
    if name in known:
        return _folder() / f"{name}.yaml"
    near = nearest(name, known)
    problem = Problem(
        "",
        f"there is no recipe {name!r}; there are {', '.join(known)}",
        hint=near and f"did you mean {near}?",
    )
    raise RecipeError([problem], hint="finetune recipes ls")


def _folder() -> Path:
    """Find the folder of the recipes: beside the package first, then inside it."""
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "recipes"
    return beside if (beside / "default.yaml").is_file() else package / "recipes"


def _summary(path: Path) -> str:
    """Read the first line of a recipe's header."""
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
