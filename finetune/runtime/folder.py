"""The run folder: where a run writes; nothing in it is overwritten by accident.

`claim` makes it; `check_free` finds out beforehand whether it may.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.runtime.files import append_line, make_folder, require_writable, sweep, write_text

__all__ = ["RunFolder", "check_free", "claim", "claim_next"]

_MARK = "events.jsonl"  # written first and removed last: a folder that holds it is a run's
# All that a run writes: nothing else in its folder is ever removed.
_TABLES = ("confusion_matrix.csv", "history.csv", "per_class.csv", "predictions.csv", "slices.csv")
_WRITTEN = frozenset(
    (
        *("recipe.yaml", "split.csv", "environment.json", "metrics.json", "report.html", *_TABLES),
        *("checkpoints", "model", "plots", "tracking"),
    )
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: Where it stands.
    """

    path: Path

    @property
    def model(self) -> Path:
        """Folder of the saved model."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of what an interrupted run goes on from."""
        return self.path / "checkpoints"

    def write_text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all."""
        write_text(self.path / name, text)

    def write_json(self, name: str, document: Mapping[str, object]) -> None:
        """Write a JSON file whole or not at all; NaN is refused."""
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        self.write_text(name, text + "\n")

    def append_event(self, row: Mapping[str, object]) -> None:
        """Append one JSON object as one line to `events.jsonl`."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False)
        append_line(self.path / "events.jsonl", line)

    def sweep(self) -> None:
        """Remove what was being written when a process was killed."""
        for folder in (self.path, self.model, self.path / "plots"):
            sweep(folder)

    def contents(self) -> tuple[str, ...]:
        """Name what stands in the folder now, sorted; folders end in a slash."""
        entries: Iterable[Path] = sorted(self.path.iterdir()) if self.path.is_dir() else ()
        return tuple(entry.name + "/" * entry.is_dir() for entry in entries)


def check_free(path: Path, *, overwrite: bool = False, beside: bool = False) -> None:
    """Check, without writing, that a run may use a folder: now, not after an hour.

    Args:
        path: The folder.
        overwrite: An earlier run in it may be replaced.
        beside: Files of others may stand in it, as long as a run writes none of their names.

    Raises:
        FinetuneError: It exists and is not empty, or it cannot be written.
    """
    if path.is_file():
        raise FinetuneError(f"{path} is a file, not a folder", hint="choose another --out")
    contents = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    is_shared = beside and not any(_holds_something(path / name) for name in contents & _WRITTEN)
    if contents and not overwrite and not is_shared:
        raise FinetuneError(
            f"{path} exists and is not empty; a run folder is never overwritten unasked",
            hint="choose another --out, or add --overwrite",
        )
    if contents and _MARK not in contents and not is_shared:
        raise FinetuneError(
            f"{path} holds files but no run; it is left as it is so that nothing is lost",
            hint="choose another --out",
        )
    require_writable(path)


def claim(path: Path, *, overwrite: bool = False, beside: bool = False) -> RunFolder:
    """Make the folder of a run; of an earlier one in it nothing is left.

    Args:
        path: The folder.
        overwrite: As in `check_free`.
        beside: As in `check_free`.

    Raises:
        FinetuneError: It exists and is not empty, or it cannot be written.
    """
    check_free(path, overwrite=overwrite, beside=beside)
    if (path / _MARK).exists():
        _clear(path)
    make_folder(path)
    return RunFolder(path)


def claim_next(data: str | Path, backbone: str, *, root: Path = Path("runs")) -> RunFolder:
    """Make `runs/<data>-<backbone>-<NNN>` with the first number that is free.

    Of runs that begin at one moment each gets a number of its own.

    Args:
        data: Folder or CSV of the data; its name, a CSV's without ending, goes into the path's.
        backbone: Name of the backbone; a source before `:` and folders are dropped.
        root: Folder of all runs.

    Raises:
        FinetuneError: It cannot be made.
    """
    place = Path(data).resolve()
    name = place.stem if place.is_file() else place.name
    stem = f"{_slug(name)}-{_slug(_backbone_stem(backbone))}"
    make_folder(root)
    number = 1
    while True:
        path = root / f"{stem}-{number:03d}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        except OSError:
            make_folder(path)  # says why it cannot
        else:
            return RunFolder(path)


def _holds_something(path: Path) -> bool:
    """Tell an empty folder, which a run may take, from everything else."""
    return not path.is_dir() or any(path.iterdir())


def _clear(path: Path) -> None:
    """Remove what an earlier run wrote into its folder; what others put there stays."""
    sweep(path)
    for name in (*sorted(_WRITTEN), _MARK):
        entry = path / name
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def _backbone_stem(backbone: str) -> str:
    """Drop the source and the folders: `local-dir:weights/x` → `x`."""
    return backbone.rpartition(":")[2].rstrip("/").rpartition("/")[2]


def _slug(name: str) -> str:
    """Keep letters, digits, dot, dash and underscore, of any script."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "data"
