"""Every error a user can meet, as a tree, with the exit code of each branch.

    FinetuneError                                 1
    ├── RecipeError(ValueError)                   2   a recipe or a flag: all problems at once
    ├── DataError(ValueError)                     3   photos, folders, manifests
    ├── BackboneError(ValueError)                 4   unknown name, no weights, unfit input size
    ├── TrainingError(RuntimeError)               5   non-finite loss, out of memory
    ├── BundleError, ExportError                  6   a saved model that does not hold together
    ├── MissingExtraError(ImportError)            7   an optional dependency is not installed
    └── NotFittedError(ValueError, AttributeError) 1  used before `fit`

A message says what happened, where, what was seen and what is allowed; `hint` is the next thing
to type. Errors of other libraries are translated at the file that calls them, never further up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

__all__ = [
    "DISTRIBUTION",
    "BackboneError",
    "BundleError",
    "DataError",
    "ExportError",
    "FinetuneError",
    "MissingExtraError",
    "NotFittedError",
    "Problem",
    "RecipeError",
    "TrainingError",
    "join_names",
    "nearest",
]

DISTRIBUTION = "finetune-vision"  # the name on the package index; `finetune` is taken there


class FinetuneError(Exception):
    """Root of every error that this package raises on purpose.

    Args:
        message: One sentence: what happened, where, what was seen, what is allowed.
        hint: The next command to type or value to change; None where there is none.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a recipe.

    Attributes:
        path: Dotted path of the value, such as `stages.0.lr`; empty for the file as a whole.
        message: What is wrong and what is allowed.
        line: 1-based line in the file; None where the value came from a flag or from Python.
        hint: The nearest valid name or value; None where there is none.
    """

    path: str
    message: str
    line: int | None = None
    hint: str | None = None


class RecipeError(FinetuneError, ValueError):
    """A recipe, `--set` or a constructor argument is wrong; carries every problem found.

    Args:
        problems: All problems of the recipe, in the order of their lines.
        source: The file or name that the recipe came from; None for one built in Python.
        hint: The next command to type.
    """

    exit_code = 2

    def __init__(
        self, problems: Sequence[Problem], *, source: str | None = None, hint: str | None = None
    ) -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__("\n".join(self._lines()), hint=hint)

    def _lines(self) -> list[str]:
        """One line a problem: `file:line: path: message (hint)`."""
        lines = []
        for problem in self.problems:
            place = self.source or ""
            if problem.line is not None:
                place = f"{place or 'recipe'}:{problem.line}"
            parts = [part for part in (place, problem.path) if part]
            tail = f" ({problem.hint})" if problem.hint else ""
            lines.append(": ".join([*parts, problem.message]) + tail)
        return lines


class DataError(FinetuneError, ValueError):
    """Photos, folders or a manifest cannot be used as they are."""

    exit_code = 3


class BackboneError(FinetuneError, ValueError):
    """A backbone is unknown, its weights are out of reach, or they do not fit."""

    exit_code = 4


class TrainingError(FinetuneError, RuntimeError):
    """Training cannot go on: a non-finite loss, or no memory for the batch."""

    exit_code = 5


class BundleError(FinetuneError):
    """A saved model is missing, damaged, or contradicts itself."""

    exit_code = 6


class ExportError(FinetuneError):
    """A model cannot be written in the wanted format, or its answers differ there."""

    exit_code = 6


class MissingExtraError(FinetuneError, ImportError):
    """An optional dependency is needed; the hint is the command that installs it."""

    exit_code = 7

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(
            f"{what} needs a package that is not installed",
            hint=f'pip install "{DISTRIBUTION}[{extra}]"',
        )


class NotFittedError(FinetuneError, ValueError, AttributeError):
    """A classifier was asked for answers before `fit` or `load`."""


def join_names(names: Sequence[object], *, limit: int = 5) -> str:
    """Join names for a message: the first few, then how many more.

    >>> join_names(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    shown = ", ".join(str(name) for name in names[:limit])
    rest = len(names) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown


def nearest(name: str, allowed: Sequence[str]) -> str | None:
    """Find the allowed name most like a misspelt one; None where none is close.

    >>> nearest("epoch", ["epochs", "lr"])
    'epochs'
    """
    matches = get_close_matches(name, allowed, n=1, cutoff=0.6)
    return matches[0] if matches else None
