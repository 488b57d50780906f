"""How much room there is: on the disk of a folder and in memory; sizes in words; lack of memory."""

import os
import shutil
import sys
from pathlib import Path

__all__ = [
    "GIB",
    "free_disk",
    "free_memory",
    "free_shared_memory",
    "is_lack_of_memory",
    "size_words",
]

GIB = 1 << 30
_MEMINFO = Path("/proc/meminfo")
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
_UNKNOWN_SHARE = 4  # where a system does not say what is free, one part in so many counts as free
_UNKNOWN_BYTES = 2 * GIB  # the same where it does not even say what there is


def free_disk(folder: Path) -> int:
    """Give the bytes that this user may still write below a folder, which need not exist yet."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return 0
    return shutil.disk_usage(nearest).free


def free_memory() -> int:
    """Give the bytes of memory that can be had without swapping, on the safe side where unknown.

    What the kernel would give back (its cache of files) counts as free, and a container's limit
    counts where it is lower.
    """
    free = _meminfo_free()
    for folder, limit_name, used_name, cached_name in _GROUPS:
        limit, used = _read_int(folder / limit_name), _read_int(folder / used_name)
        if limit is not None and used is not None:
            cached = _read_statistic(folder / "memory.stat", cached_name)
            free = min(free, max(0, limit - max(0, used - cached)))
    return free


def free_shared_memory() -> int | None:
    """Give the bytes that processes may still share on Linux; None on other systems."""
    if sys.platform != "linux":
        return None
    return free_disk(_SHM) if _SHM.is_dir() else 0


def is_lack_of_memory(error: Exception) -> bool:
    """Whether an allocator gave up: Python's, torch's of an accelerator, or torch's of the CPU."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


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


def _meminfo_free() -> int:
    """Read what Linux says is available; elsewhere ask for free pages."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        (available,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(available) * 1024
    except (OSError, ValueError):
        return _free_pages()


def _free_pages() -> int:
    """Count the bytes of free pages; a part of all pages on macOS, which does not say, or less."""
    for name, share in (("SC_AVPHYS_PAGES", 1), ("SC_PHYS_PAGES", _UNKNOWN_SHARE)):
        try:
            return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE") // share
        except (AttributeError, OSError, ValueError):
            continue
    return _UNKNOWN_BYTES


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
