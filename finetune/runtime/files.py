"""Files are written whole or not at all: under a temporary name, then renamed.

What a killed process leaves has such a name, by which `sweep` knows it.

A full disk, a folder that cannot be written and a path that is a file each become one sentence.
"""

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from finetune.errors import FinetuneError
from finetune.runtime.paths import existing_part

__all__ = [
    "append_line",
    "cannot_write",
    "make_folder",
    "require_writable",
    "sweep",
    "temporary_beside",
    "write_text",
    "write_with",
]

_NUM_TRIES = 20  # for two seconds: scanners and indexers hold a new file for less
_PAUSE_SECONDS = 0.1
# Ours, and the one that safetensors writes to before it renames.
_TEMPORARY = re.compile(r"\.[0-9a-f]{12}(\..*)?|\.tmp\w{6}")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    write_with(path, lambda temporary: temporary.write_bytes(text.encode()))


def write_with(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer` write a temporary file beside `path`, then rename it to `path`.

    Args:
        path: Where the file shall stand.
        writer: Receives the temporary path; it keeps the ending of `path`.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    temporary = temporary_beside(path)
    try:
        writer(temporary)
        _replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file to one that may exist; Windows refuses while somebody reads that one."""
    for _ in range(_NUM_TRIES if sys.platform == "win32" else 0):
        try:
            os.replace(temporary, path)
        except PermissionError:
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    os.replace(temporary, path)


def temporary_beside(path: Path) -> Path:
    """Name a file or folder that shall become `path`, with its ending."""
    return path.with_name(f".{uuid4().hex[:12]}{path.suffix}")


def sweep(folder: Path) -> None:
    """Remove what was being written into a folder when a process was killed."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if not _TEMPORARY.fullmatch(entry.name):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def append_line(path: Path, text: str) -> None:
    """Append a line of UTF-8 text, whole or not at all.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    line = text.encode() + b"\n"
    try:
        with path.open("ab", buffering=0) as stream:
            size = stream.tell()
            if stream.write(line) < len(line):  # as much as there was room for
                stream.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents.

    Raises:
        FinetuneError: It cannot be made; the sentence says why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def require_writable(path: Path) -> None:
    """Check, without writing, that a file or a folder can be made at a path, with its parents.

    Raises:
        FinetuneError: The nearest folder that there is cannot be written.
    """
    nearest = existing_part(path.parent if path.is_file() else path)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise FinetuneError(f"cannot write in {nearest}", hint="choose another --out")


def cannot_write(path: Path, error: OSError) -> FinetuneError:
    """Say in one sentence why a file or a folder could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FinetuneError(
            f"cannot write {path}: the disk is full",
            hint="free some space, or choose another --out",
        )
    return FinetuneError(
        f"cannot write {path}: {error.strerror or error}",
        hint="choose a folder that can be written with --out",
    )
