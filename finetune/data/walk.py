"""Walk folders of photos: every visible file once, by sorted names, through links but never round.

Hidden files and folders, what operating systems leave behind, and names that no table could hold
are told apart from files here; whether a file is an image is the decoder's business.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finetune.errors import DataError
from finetune.types import LeftOut

__all__ = ["Listing", "display_name", "list_folder", "list_images", "walk_files"]

# Folders and files that systems make without being asked.
_SYSTEM_NAMES = frozenset(
    (
        *("$RECYCLE.BIN", "@eaDir", "Icon\r", "System Volume Information", "Thumbs.db"),
        *("__MACOSX", "desktop.ini", "lost+found"),
    )
)
# Of a run, of a saved model, and of an evaluation, which has no run's events.
_MARKS = (
    {"events.jsonl", "recipe.yaml"},
    {"finetune.json", "config.json"},
    {"metrics.json", "predictions.csv"},
)
_OF_A_RUN = "the folder of a run or of a saved model"
_NOT_UTF8 = "its name is not valid UTF-8; rename it"


@dataclass(frozen=True, slots=True)
class Listing:
    """What stands directly in a folder.

    Attributes:
        folders: Visible folders, sorted by name.
        files: Visible regular files, sorted by name.
        left_out: Everything else by its path, and why.
    """

    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    left_out: tuple[tuple[Path, str], ...]


@dataclass(slots=True)
class _Walk:
    """What a walk has met so far, and whether it passes by what runs wrote."""

    passes_runs: bool = False
    files: list[Path] = field(default_factory=list)
    left_out: list[tuple[Path, str]] = field(default_factory=list)


def list_folder(folder: Path) -> Listing:
    """List a folder without going deeper.

    Raises:
        DataError: It cannot be listed.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise DataError(f"cannot list the folder {display_name(folder)}: {reason}") from error
    judged = [(folder / entry.name, *_judge(entry)) for entry in entries]
    return Listing(
        folders=tuple(path for path, is_folder, reason in judged if is_folder and reason is None),
        files=tuple(path for path, is_folder, reason in judged if not is_folder and reason is None),
        left_out=tuple((path, reason) for path, _, reason in judged if reason is not None),
    )


def walk_files(folder: Path, *, root: Path) -> tuple[list[Path], list[LeftOut]]:
    """Find every visible file below a folder, sorted by name; not those of runs and models.

    Args:
        folder: Where to begin.
        root: What the names of left-out files are relative to.

    Raises:
        DataError: A folder cannot be listed.
    """
    walk = _Walk(passes_runs=True)
    _descend(folder, (_identity(folder),), walk)
    left_out = [
        LeftOut(display_name(path.relative_to(root)), reason) for path, reason in walk.left_out
    ]
    return sorted(walk.files), left_out


def list_images(paths: "list[str | Path] | tuple[str | Path, ...]") -> list[Path]:
    """Expand what `predict` is given: files stay as they are, folders give what is in them.

    A path that is named always stays, even where there is no such file: its row will say so. A
    folder gives every regular file below it that is not hidden, sorted by name, judged by content
    later and not by its ending.

    Raises:
        DataError: A folder cannot be listed.
    """
    return [file for path in paths for file in _expanded(Path(path))]


def display_name(path: Path) -> str:
    """Give a POSIX path that can be printed and written as UTF-8, whatever bytes it has."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode()


def _expanded(path: Path) -> Iterator[Path]:
    """Give a file itself, and the visible regular files below a folder, whatever their names."""
    if not os.path.isdir(path):  # unlike Path.is_dir, False also of a name too long
        yield path
        return
    walk = _Walk()
    _descend(path, (_identity(path),), walk)
    others = [
        other
        for other, reason in walk.left_out
        if other.name in _SYSTEM_NAMES or reason == _NOT_UTF8
    ]
    files = [*walk.files, *(other for other in others if other.is_file())]
    folders = (
        other
        for other in others
        if other.is_dir() and other.name not in _SYSTEM_NAMES and not other.is_symlink()
    )
    yield from sorted([*files, *(file for folder in folders for file in _expanded(folder))])


def _descend(folder: Path, ancestors: tuple[tuple[int, int], ...], walk: _Walk) -> None:
    """Collect a folder's files, then those of its folders; a link to an ancestor is left out."""
    listing = list_folder(folder)
    names = {file.name for file in listing.files}
    if walk.passes_runs and any(marks <= names for marks in _MARKS):
        walk.left_out.append((folder, _OF_A_RUN))
        return
    walk.files.extend(listing.files)
    walk.left_out.extend(listing.left_out)
    for child in listing.folders:
        identity = _identity(child)
        if identity in ancestors:
            walk.left_out.append((child, "a link back to a folder above it"))
        else:
            _descend(child, (*ancestors, identity), walk)


def _identity(folder: Path) -> tuple[int, int]:
    """Tell a folder from others whatever its name."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _judge(entry: "os.DirEntry[str]") -> tuple[bool, str | None]:
    """Say whether an entry is a folder, and why it is left out; None where it is not."""
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:  # a link in a circle, or into a folder that may not be entered
        is_folder = is_file = False
        reason = (error.strerror or type(error).__name__).lower()
    else:
        reason = "a link to nothing" if entry.is_symlink() else "not a regular file"
    if entry.name.startswith("."):
        return is_folder, "hidden"
    if entry.name in _SYSTEM_NAMES:
        return is_folder, "left by the operating system"
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        return is_folder, _NOT_UTF8
    return is_folder, None if is_folder or is_file else reason
