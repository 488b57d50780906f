"""Memory that a step frees is kept for the next one, where the C library would give it back.

Every step of a network allocates tensors of megabytes and frees them. glibc takes each of them from
the system and returns it, and the system fills it with zeros anew: half of the processor time of
MobileNetV2 on two cores went there (`docs/benchmarks/allocator.json`). mallopt(3) tells it to keep
what was freed; elsewhere than on glibc nothing is changed.

A process that is forked shares the memory of its parent until either of them writes, and then every
page is copied. So what is kept and free goes back before a fork.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

__all__ = ["freed_memory_kept"]

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
# Where glibc's own thresholds end, which move until one of them is set.
_MIB = 1024 * 1024
_GIVE_BACK = {_MMAP_MAX: 65_536, _TRIM_THRESHOLD: 64 * _MIB, _MMAP_THRESHOLD: 32 * _MIB}
_OWN_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")  # of a person who tunes it; theirs stand

_lock = Lock()
_depth = 0  # blocks that are entered
_is_told_of_forks = False


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory in this process until the outermost block is left; then give it back.

    Blocks may stand in one another, and in several threads. Source of the parameters: mallopt(3).
    """
    library = _glibc()
    if library is None:
        yield
        return
    _enter(library)
    try:
        yield
    finally:
        _leave(library)


def _enter(library: Any) -> None:
    """Begin to keep memory, unless another block does so already."""
    global _depth, _is_told_of_forks
    with _lock:
        _depth += 1
        if _depth == 1:
            _set(library, _KEEP)
        if not _is_told_of_forks:  # for good: there is no way to take it back
            os.register_at_fork(before=lambda: library.malloc_trim(0) if _depth else None)
            _is_told_of_forks = True


def _leave(library: Any) -> None:
    """Give back what was kept, if no other block needs it."""
    global _depth
    with _lock:
        _depth -= 1
        if _depth == 0:
            _set(library, _GIVE_BACK)
            library.malloc_trim(0)


def _set(library: Any, values: dict[int, int]) -> None:
    """Set parameters of malloc."""
    for parameter, value in values.items():
        library.mallopt(parameter, value)


def _glibc() -> Any | None:
    """Give the C library of this process where it is glibc and nobody has tuned it."""
    if sys.platform != "linux" or any(name.startswith(_OWN_SETTINGS) for name in os.environ):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
