"""Run the embedded example: the starter backbone fine-tuned, and the same network from scratch."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.walk import walk_files
from finetune.demo.digits import NAMES, UNSEEN_DIGITS, write_digits
from finetune.errors import FinetuneError
from finetune.pipeline import Run, run
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments
from finetune.report.material import asked_of

if TYPE_CHECKING:
    from finetune.train.events import OnEvent

__all__ = ["HERE", "STARTER", "DemoResult", "run_demo"]

HERE = Path(__file__).parent
STARTER = HERE / "starter"
PER_CLASS = {"train": 5, "val": 10, "test": 200}  # more test images than any digit has: the rest
RUNS = {"tuned": "fine-tuned from the starter", "scratch": "the same network from scratch"}


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the example gave.

    Attributes:
        data: Folder of the photos.
        tuned: The run that began with the starter's weights.
        scratch: The run that began with random ones.
    """

    data: Path
    tuned: Run
    scratch: Run


def run_demo(
    folder: Path,
    *,
    on_event: OnEvent | None = None,
    on_run: Callable[[str], None] | None = None,
) -> DemoResult:
    """Write the digits, fine-tune the starter on them, and train from scratch beside it.

    Args:
        folder: Receives `digits/`, `tuned/` and `scratch/`; an earlier example there is replaced.
        on_event: Receives what happens in both runs.
        on_run: Told in a few words which run begins.

    Raises:
        FinetuneError: The folder holds other photos or runs by these names.
    """
    data = folder / "digits"
    _require_ours(folder, data)
    write_digits(data, UNSEEN_DIGITS, per_class=PER_CLASS)
    runs = {}
    for name, words in RUNS.items():
        if on_run:
            on_run(words)
        recipe = with_arguments(
            load_recipe(HERE / f"{name}.yaml"), backbone=f"local-dir:{STARTER}", data=data
        )
        runs[name] = run(recipe, out=folder / name, overwrite=True, on_event=on_event)
    return DemoResult(data, **runs)


def _require_ours(folder: Path, data: Path) -> None:
    """Refuse to replace runs of other photos, and to write digits among other photos."""
    ours = re.compile(rf"({'|'.join(NAMES)})_\d+\.png")
    files = walk_files(data, root=data)[0] if data.is_dir() else []
    strangers = [f"{file} is no digit" for file in files if not ours.fullmatch(file.name)]
    for run_folder in (folder / name for name in RUNS):
        if not any((run_folder / name).exists() for name in ("recipe.yaml", "events.jsonl")):
            continue  # free, or refused by the run itself
        trained_on = asked_of(run_folder).data
        if trained_on != data.resolve():
            strangers.append(f"{run_folder} was trained on {trained_on or 'other photos'}")
    if strangers:
        raise FinetuneError(
            f"{strangers[0]}: only an earlier example here is replaced",
            hint="finetune demo ANOTHER_FOLDER",
        )
