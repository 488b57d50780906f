"""How much there is of what is shared: disk, memory, a container's time; lack of memory."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from finetune.runtime.paths import existing_part

__all__ = [
    "GIB",
    "KEPT_FREE_BYTES",
    "cpu_share",
    "free_disk",
    "free_memory",
    "free_shared_memory",
    "in_pieces",
    "is_lack_of_memory",
    "size_words",
]

GIB = 1 << 30
KEPT_FREE_BYTES = 2 * GIB  # of the disk: for the run folder and for everybody else
_SHM = Path("/dev/shm")
# Limit, use and statistics of a container, version 2 and version 1 of control groups, with the
# statistic of what is used for files and given back when it is needed.
_GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current", "inactive_file"),
    (
        Path("/sys/fs/cgroup/memory"),
        *("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ),
)
# Microseconds of each period that a container may compute, and the period; likewise.
_CPU_QUOTAS = (
    (Path("/sys/fs/cgroup/cpu.max"),),
    tuple(Path("/sys/fs/cgroup/cpu") / f"cpu.cfs_{name}_us" for name in ("quota", "period")),
)
# What torch says on a GPU, on a CPU, on Windows' CPU, and by the libraries of a full GPU.
_LACK_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")

T = TypeVar("T")


def free_disk(folder: Path) -> int:
    """Give the bytes that this user may still write below a folder, which need not exist yet."""
    nearest = existing_part(folder)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return 0
    return shutil.disk_usage(nearest).free


def free_memory() -> int:
    """Give the bytes of memory that can be had without swapping.

    What the kernel would give back (its cache of files) counts as free, and a container's limit
    counts where it is lower.
    """
    from psutil import virtual_memory

    free = int(virtual_memory().available)
    for folder, limit_name, used_name, cached_name in _GROUPS:
        limit, used = _read_int(folder / limit_name), _read_int(folder / used_name)
        if limit is not None and used is not None:
            cached = _read_statistic(folder / "memory.stat", cached_name)
            free = min(free, max(0, limit - max(0, used - cached)))
    return free


def cpu_share() -> float | None:
    """Give how many cores' time a container may take, as `docker run --cpus` says; None for all."""
    for files in _CPU_QUOTAS:
        try:
            text = " ".join(file.read_text(encoding="ascii") for file in files)
            quota, period = map(float, text.split())
        except (OSError, ValueError):  # of the other version, or `max`
            continue
        if quota > 0 and period > 0:  # -1 is no limit
            return quota / period
    return None


def free_shared_memory() -> int | None:
    """Give the bytes that processes may still share on Linux; None on other systems."""
    if sys.platform != "linux":
        return None
    return free_disk(_SHM) if _SHM.is_dir() else 0


def is_lack_of_memory(error: Exception) -> bool:
    """Whether an allocator gave up: Python's, torch's of an accelerator, or torch's of the CPU."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _LACK_WORDS)
    )


def in_pieces(compute: Callable[[slice], T], num_rows: int) -> list[T]:
    """Compute rows at once, or in halves of halves where memory does not suffice.

    Args:
        compute: Given the rows to compute, as a slice.
        num_rows: Number of rows, at least 1.

    Returns:
        What each piece gave, in order.

    Raises:
        MemoryError: There is no memory for one row; or torch's error that says so.
    """
    given, waiting = [], [slice(0, num_rows)]
    while waiting:
        rows = waiting.pop()
        try:
            given.append(compute(rows))
            continue
        except (MemoryError, RuntimeError) as error:  # also torch.OutOfMemoryError
            if rows.stop - rows.start < 2 or not is_lack_of_memory(error):
                raise
        middle = (rows.start + rows.stop) // 2  # outside of the block: it holds what was in memory
        waiting += [slice(middle, rows.stop), slice(rows.start, middle)]
    return given


def size_words(num_bytes: int) -> str:
    """Write a size as a person says it.

    >>> size_words(512), size_words(5_120), size_words(1_300_000_000), size_words(10 * GIB)
    ('512 B', '5.0 KiB', '1.2 GiB', '10 GiB')
    """
    if num_bytes < 1024:
        return f"{num_bytes} B"
    size = float(num_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1023.5:
            return f"{size:.0f} {unit}" if size >= 9.95 else f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def _read_statistic(path: Path, name: str) -> int:
    """Read a number from lines of names and numbers; 0 where it is absent."""
    try:
        lines = (line.split() for line in path.read_text(encoding="ascii").splitlines())
        return next(int(line[1]) for line in lines if line[:1] == [name])
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def _read_int(path: Path) -> int | None:
    """Read a file of one number; None where it is absent or says `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
