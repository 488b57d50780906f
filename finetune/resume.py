"""What an interrupted run left, and whether it can go on: only as the run that it was.

A run goes on where its recipe, its photos and its split are those it began with, to the byte. What
differs is refused and named, rather than continued as something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.prepare import fingerprint
from finetune.data.split import split_text
from finetune.errors import DataError, Problem, RecipeError
from finetune.recipe.load import load_recipe
from finetune.recipe.values import to_values
from finetune.runtime.folder import RunFolder
from finetune.train.checkpoint import has_checkpoint

if TYPE_CHECKING:
    from finetune.plan import Plan
    from finetune.recipe.schema import Recipe

__all__ = ["Interrupted", "find_interrupted", "is_finished"]

_MISSING = object()
# What may differ, since no result depends on it: a run may go on with fewer workers, for one.
_FREE = ("runtime.workers", "runtime.checkpoint_gib", "runtime.checkpoint_share")


def is_finished(path: Path) -> bool:
    """Tell whether a folder holds a run that came to its end."""
    return (path / "metrics.json").is_file()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A run that can go on.

    Attributes:
        folder: Its folder, which holds a checkpoint.
        recipe: What it does; nothing in it is "auto".
    """

    folder: RunFolder
    recipe: Recipe

    def complete(self, asked: Recipe) -> Recipe:
        """Give the recipe asked for with what it leaves open chosen as in this run."""
        values = to_values(asked, is_complete=True)
        chosen = to_values(self.recipe, is_complete=True)
        return load_recipe(_filled(values, chosen))

    def take_up(self, planned: Plan) -> RunFolder:
        """Give the folder to go on in; refuse to go on as another run.

        Raises:
            RecipeError: A value differs; all are named.
            DataError: Photos were added, removed or changed since.
        """
        now = to_values(planned.recipe, is_complete=True, mode="json")
        then = to_values(self.recipe, is_complete=True, mode="json")
        problems = [one for one in _differences(now, then, "") if one.path not in _FREE]
        if problems:
            raise RecipeError(problems, hint=f"leave it as it was, or {self._afresh()}")
        path = self.folder.path
        begun = json.loads((path / "environment.json").read_text(encoding="utf-8"))
        is_same_list = (path / "split.csv").read_text(encoding="utf-8") == split_text(planned.index)
        if not is_same_list or begun["data_fingerprint"] != fingerprint(planned.index):
            raise DataError(
                f"the photos are not those that {path} began with: some were added, removed, "
                f"renamed or changed since ({path}/split.csv lists them)",
                hint=f"put them back as they were, or {self._afresh()}",
            )
        self.folder.sweep()
        return self.folder

    def _afresh(self) -> str:
        """Say how to begin anew."""
        return "begin afresh with --overwrite in place of --resume"


def find_interrupted(path: Path) -> Interrupted | None:
    """Find the run that a folder holds; None where there is none that could go on.

    Raises:
        RecipeError: Its recipe cannot be read.
    """
    needed = ("recipe.yaml", "split.csv", "environment.json")
    folder = RunFolder(path)
    if not all((path / name).is_file() for name in needed):
        return None
    if not has_checkpoint(folder.checkpoints):
        return None
    return Interrupted(folder, load_recipe(path / "recipe.yaml"))


def _filled(asked: Any, chosen: Any) -> Any:
    """Replace every "auto" by what was chosen."""
    if isinstance(asked, Mapping) and isinstance(chosen, Mapping):
        return {name: _filled(value, chosen.get(name)) for name, value in asked.items()}
    are_lists = isinstance(asked, list | tuple) and isinstance(chosen, list | tuple)
    if are_lists and len(asked) == len(chosen):
        return [_filled(one, other) for one, other in zip(asked, chosen, strict=True)]
    return chosen if asked == "auto" and chosen is not None else asked


def _differences(now: Any, then: Any, place: str) -> Iterator[Problem]:
    """Name what differs between two recipes."""
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for name in dict.fromkeys((*now, *then)):
            inner = f"{place}.{name}" if place else name
            yield from _differences(now.get(name, _MISSING), then.get(name, _MISSING), inner)
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for index, (one, other) in enumerate(zip(now, then, strict=True)):
            yield from _differences(one, other, f"{place}.{index}")
    elif now != then:
        yield Problem(place, f"is {_shown(now)}, but the run began with {_shown(then)}")


def _shown(value: Any) -> str:
    """Write a value as a recipe would."""
    return "absent" if value is _MISSING else json.dumps(value, ensure_ascii=False)
