"""Rows of numbers that may be more than memory holds: few are kept there, many in a mapped file.

A mapped page that nobody needs at the moment goes back to the system when memory is short, and is
read again when it is. The file has no name, so that nothing of it is left, however the process
ends.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from finetune.runtime.cache import cache_folder
from finetune.runtime.space import KEPT_FREE_BYTES, free_disk

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["collect_rows"]

_IN_MEMORY_BYTES = 32 << 20  # 6,500 vectors of 1,280 values
_AT_ONCE_BYTES = 4 << 20


def collect_rows(
    read: Callable[[slice], NDArray[np.float32]], num_rows: int, width: int
) -> NDArray[np.float32]:
    """Give rows as one array, which is nobody else's.

    Args:
        read: Makes the rows (C, D) of a slice without step; asked once for all that are few, for
            some MiB at a time else.
        num_rows: N.
        width: D.

    Returns:
        (N, D), contiguous; in memory, too, where the disk has no room.
    """
    if num_rows * width * 4 > _IN_MEMORY_BYTES:
        try:
            return _in_file(read, num_rows, width)
        except OSError:  # memory is left, and who reads says again what is wrong there
            pass
    return read(slice(0, num_rows))


def _in_file(
    read: Callable[[slice], NDArray[np.float32]], num_rows: int, width: int
) -> NDArray[np.float32]:
    """Write rows to a file without a name, and map it.

    Raises:
        OSError: It cannot be written whole.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    row_bytes = width * 4
    if free_disk(folder) < num_rows * row_bytes + KEPT_FREE_BYTES:
        raise OSError(f"there is no room in {folder}")
    some = max(1, _AT_ONCE_BYTES // row_bytes)
    with tempfile.TemporaryFile(dir=folder) as file:
        for start in range(0, num_rows, some):
            rows = read(slice(start, min(start + some, num_rows)))
            file.write(np.ascontiguousarray(rows).data)
        file.flush()
        # Shared, though nobody writes: a private map would be charged as memory.
        pages = mmap.mmap(file.fileno(), num_rows * row_bytes)
    return np.frombuffer(pages, dtype=np.float32).reshape(num_rows, width)
