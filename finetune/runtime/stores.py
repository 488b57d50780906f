"""The cache's folder of stores: which there are, which are in use, and room for new ones.

A store is a folder with a header (`store.json`: what it is of) and what `records.py` writes. Its
time of last use is the header's modification time. Notable choices: who uses a store holds a lock
on a file of its own in it, which the system lets go when the process dies in whatever way; a store
is opened and removed under one lock of the whole folder, so nothing is removed that was just
opened; what is removed is renamed first, so no store is ever half there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from finetune.errors import FinetuneError
from finetune.runtime.cache import cache_folder
from finetune.runtime.files import make_folder, write_text
from finetune.runtime.space import GIB, size_words

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = [
    "DEFAULT_CACHE_BYTES",
    "ENTRY_BYTES",
    "IDS",
    "Hold",
    "Removal",
    "StoreFullError",
    "StoreInfo",
    "hold_store",
    "list_stores",
    "make_room",
    "remove_stores",
    "stores_folder",
]

DEFAULT_CACHE_BYTES = 10 * GIB  # 50,000 images of 200 KiB, or 2 million of 5 KiB
IDS = "ids.bin"  # the index of a store's records
ENTRY_BYTES = 24  # of one record in it: 16 of its id, two checksums
_HEADER = "store.json"
_LOCK = ".lock"
_GONE = ".gone-"  # begins the name of what is being removed
_USE = "use-"  # begins the name of a user's lock
_TIMEOUT_SECONDS = 30.0  # the lock of the folder is held for milliseconds
_GRANT_BYTES = 64 << 20  # room is granted in pieces, so that the folder is seldom counted


class StoreFullError(FinetuneError):
    """A store takes no more; what it holds stays right, and the caller goes on without it."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """A store as the command line lists it.

    Attributes:
        path: Its folder.
        label: What it is of, in words; empty where its header cannot be read.
        num_records: Records stored, those that a later one replaced included.
        num_bytes: Size of its files.
        last_used: Seconds since 1970.
        is_in_use: Whether a process has it open.
    """

    path: Path
    label: str
    num_records: int
    num_bytes: int
    last_used: float
    is_in_use: bool


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal removed, and what it left because it is in use."""

    removed: tuple[StoreInfo, ...]
    kept: tuple[StoreInfo, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    """A store that this process has open: nobody removes it.

    Attributes:
        path: Its folder.
        lock: Held until `release`.
    """

    path: Path
    lock: BaseFileLock

    def release(self) -> None:
        """Let others remove the store; note that it was used until now."""
        with suppress(OSError):
            os.utime(self.path / _HEADER)
        self.lock.release()
        with suppress(OSError):
            Path(self.lock.lock_file).unlink(missing_ok=True)


def stores_folder() -> Path:
    """Give the folder of all stores; it need not exist."""
    return cache_folder() / "activations"


def hold_store(folder: Path, name: str, *, header: Mapping[str, object], label: str) -> Hold:
    """Open a store for this process, or make an empty one.

    Args:
        folder: The folder of stores.
        name: Of the store in it.
        header: What the store must be of; one that says otherwise is replaced by an empty one.
        label: What it is of, in words.

    Raises:
        FinetuneError: The folder cannot be written, or another process uses what stands there.
    """
    make_folder(folder)
    path = folder / name
    try:
        with _file_lock(folder / _LOCK, timeout=_TIMEOUT_SECONDS):
            if path.exists() and _read_header(path)[1] != dict(header):
                _clear_way(path)
            if not path.exists():
                path.mkdir()
                write_text(path / _HEADER, json.dumps({"label": label, **header}) + "\n")
            os.utime(path / _HEADER)
            lock = _file_lock(path / f"{_USE}{uuid4().hex[:12]}.lock", timeout=_TIMEOUT_SECONDS)
            lock.acquire()
    except OSError as error:  # of filelock, too: its Timeout is one
        raise FinetuneError(f"cannot write {path}: {error.strerror or error}") from error
    _sweep(folder)
    return Hold(path, lock)


def list_stores(folder: Path) -> tuple[StoreInfo, ...]:
    """List the stores of a folder, the last used first."""
    entries = [entry for entry in _entries(folder) if not entry.name.startswith(".")]
    found = [info for entry in entries if (info := _describe(entry)) is not None]
    return tuple(sorted(found, key=lambda info: info.last_used, reverse=True))


def remove_stores(folder: Path, *, unused_seconds: float = 0.0) -> Removal:
    """Remove the stores that nobody uses.

    Args:
        folder: The folder of stores.
        unused_seconds: Only those last used at least as long ago.

    Raises:
        FinetuneError: The folder cannot be written.
    """
    if not folder.is_dir():
        return Removal((), ())
    try:
        with _file_lock(folder / _LOCK, timeout=_TIMEOUT_SECONDS):
            limit = time.time() - unused_seconds
            old = [info for info in list_stores(folder) if info.last_used <= limit]
            kept = tuple(info for info in old if info.is_in_use)
            removed = tuple(info for info in old if not info.is_in_use)
            for info in removed:
                _put_away(info.path)
    except OSError as error:
        raise FinetuneError(f"cannot write {folder}: {error.strerror or error}") from error
    _sweep(folder)
    return Removal(removed, kept)


def make_room(folder: Path, num_bytes: int, *, budget_bytes: int) -> int:
    """Make room for more records, by removing the stores unused for longest.

    Args:
        folder: The folder of stores.
        num_bytes: Needed.
        budget_bytes: What all stores together may take.

    Returns:
        Bytes that may be written now: at least `num_bytes`.

    Raises:
        StoreFullError: The stores in use fill the budget.
        OSError: The folder cannot be written.
    """
    with _file_lock(folder / _LOCK, timeout=_TIMEOUT_SECONDS):
        stores = list_stores(folder)
        total = sum(info.num_bytes for info in stores)
        for info in reversed(stores):
            if total + num_bytes <= budget_bytes:
                break
            if not info.is_in_use:
                _put_away(info.path)
                total -= info.num_bytes
    _sweep(folder)
    if total + num_bytes > budget_bytes:
        raise StoreFullError(
            f"no more activations are stored: the cache is at its budget of "
            f"{size_words(budget_bytes)}"
        )
    return min(max(num_bytes, _GRANT_BYTES), budget_bytes - total)


def _file_lock(path: Path, *, timeout: float) -> BaseFileLock:
    """Make a lock on a file, known to all threads of this process."""
    from filelock import FileLock

    return FileLock(path, timeout=timeout, thread_local=False)


def _entries(folder: Path) -> list[Path]:
    """List what stands in a folder; nothing where it cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _describe(path: Path) -> StoreInfo | None:
    """Describe a store; None for what is none, or has just been removed."""
    try:
        if not path.is_dir():
            return None
        sizes = {entry.name: entry.stat().st_size for entry in path.iterdir()}
        dated = path / _HEADER if _HEADER in sizes else path
        last_used = dated.stat().st_mtime
    except OSError:
        return None
    return StoreInfo(
        path=path,
        label=_read_header(path)[0],
        num_records=sizes.get(IDS, 0) // ENTRY_BYTES,
        num_bytes=sum(sizes.values()),
        last_used=last_used,
        is_in_use=_is_in_use(path),
    )


def _read_header(path: Path) -> tuple[str, dict[str, object] | None]:
    """Read a store's label and the rest of its header; None where there is none to read."""
    try:
        header = json.loads((path / _HEADER).read_text(encoding="utf-8"))
        return str(header.pop("label")), dict(header)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", None


def _is_in_use(path: Path) -> bool:
    """Whether a process holds one of the locks in a store; one that cannot be tried counts."""
    for entry in _entries(path):
        if not entry.name.startswith(_USE):
            continue
        try:
            with _file_lock(entry, timeout=0):
                entry.unlink()  # of a process that died; one that is just coming makes it anew
        except OSError:
            return True
    return False


def _clear_way(path: Path) -> None:
    """Put away what stands where a store shall be made; called under the folder's lock."""
    if _is_in_use(path):
        raise FinetuneError(f"cannot write {path}: another process uses what stands there")
    _put_away(path)


def _put_away(path: Path) -> None:
    """Take a store out of sight at once; called under the folder's lock."""
    path.rename(path.with_name(f"{_GONE}{uuid4().hex}"))


def _sweep(folder: Path) -> None:
    """Delete what was put away, also by a process that died over it."""
    for entry in _entries(folder):
        if entry.name.startswith(_GONE):
            shutil.rmtree(entry, ignore_errors=True)
