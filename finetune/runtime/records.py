"""Records of fixed size by id: a file that outlives crashes, and its like in memory.

Two files grow together: `records.bin` with the records, and `ids.bin` with an entry for each: its
id, a checksum of the record, a checksum of the entry. Notable choices:

- A record is written before its entry: a writer killed in between leaves bytes that no entry names,
  and the next writer overwrites them. An entry that is cut short or does not match is passed over.
- A record is trusted once its checksum was seen to match, the first time that it is asked for in
  this process (CRC-32 over id and record). One that does not match is missing again.
- Nothing that an entry names is ever overwritten or cut off, so readers need no lock. Writers take
  turns by a file lock.
- What was read is given back to the system now and then: the resident memory of a process does not
  grow with the store.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import threading
import zlib
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from finetune.runtime.space import size_words
from finetune.runtime.stores import ENTRY_BYTES, IDS, StoreFullError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Field", "RecordFile", "RecordMemory", "Records", "Reserve"]

Field = tuple[int, int]  # offset and length in a record, in bytes
Reserve = Callable[[int], int]  # bytes needed → bytes that may be written; raises StoreFullError

_RECORDS = "records.bin"
_LOCK = "write.lock"
_ENTRY = struct.Struct("<16sII")
_LOCK_SECONDS = 60.0  # a batch is written in milliseconds; who waits longer waits for the dead
_RESIDENT_BYTES = 256 << 20  # mapped pages are given back after so many bytes read
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
_HINT = "finetune cache clear frees what earlier runs stored"


class Records(Protocol):
    """Records of one size, by ids of 16 bytes. An id, once stored, keeps its record."""

    @property
    def num_records(self) -> int:
        """Ids that can be read now, as far as this process knows."""
        ...

    def missing(self, ids: Sequence[bytes]) -> list[int]:
        """Give the positions of the ids that are not stored, or not as they were written."""
        ...

    def append(self, ids: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        """Store records (B, R) under B ids; those already stored are passed over.

        Raises:
            StoreFullError: It takes no more.
        """
        ...

    def locate(self, ids: Sequence[bytes]) -> NDArray[np.int64]:
        """Give where the record of each id stands (B,), for as long as these records are open.

        Raises:
            KeyError: An id is not stored.
        """
        ...

    def gather(self, slots: NDArray[np.int64], fields: Sequence[Field]) -> list[NDArray[np.uint8]]:
        """Copy fields of located records, in their order: (B, length) for each field."""
        ...

    def close(self) -> None:
        """Let go of files and memory."""
        ...


class RecordFile:
    """Records in two files of a folder, shared by processes.

    Args:
        folder: Exists and can be written.
        record_bytes: R, at least 1.
        reserve: Asked before anything is written.

    Raises:
        OSError: The files cannot be opened for writing.
    """

    def __init__(self, folder: Path, record_bytes: int, *, reserve: Reserve) -> None:
        from filelock import FileLock

        self._record_bytes = record_bytes
        self._reserve = reserve
        self._granted = 0
        self._index = _open(folder / IDS)
        self._records = _open(folder / _RECORDS)
        self._lock = FileLock(folder / _LOCK, timeout=_LOCK_SECONDS, thread_local=False)
        self._mutex = threading.RLock()
        self._trusted: dict[bytes, int] = {}  # slots of records whose checksum was seen to match
        self._unseen: dict[bytes, int] = {}  # slots of the others
        self._checksums = array("I")
        self._map: mmap.mmap | None = None
        self._table: NDArray[np.void] = np.empty(0, dtype=f"V{record_bytes}")
        self._num_read = 0

    @property
    def num_records(self) -> int:
        """Ids that can be read now, as far as this process knows."""
        return len(self._trusted) + len(self._unseen)

    def missing(self, ids: Sequence[bytes]) -> list[int]:
        """Give the positions of the ids that are not stored, or not as they were written.

        What other processes have written since is seen. Each record is read in full the first time.
        """
        with self._mutex:
            self._refresh()
            self._verify(ids)
            return [position for position, one in enumerate(ids) if one not in self._trusted]

    def append(self, ids: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        """Store records (B, R) under B ids; those already stored are passed over.

        Raises:
            StoreFullError: The disk or the budget is full, or the files can no longer be written.
        """
        with self._mutex:
            try:
                needed = len(ids) * (self._record_bytes + ENTRY_BYTES)
                if needed > self._granted:
                    self._granted = self._reserve(needed)
                with self._lock:
                    self._granted -= self._write_new(ids, rows)
            except OSError as error:
                reason = _FULL.get(error.errno or 0, error.strerror or str(error))
                raise StoreFullError(
                    f"no more activations are stored: {reason}", hint=_HINT
                ) from error

    def locate(self, ids: Sequence[bytes]) -> NDArray[np.int64]:
        """Give where the record of each id stands (B,), for as long as these records are open.

        Raises:
            KeyError: An id is not stored.
        """
        with self._mutex:
            if self._unseen:
                self._verify(ids)
            return _find(self._trusted, ids)

    def gather(self, slots: NDArray[np.int64], fields: Sequence[Field]) -> list[NDArray[np.uint8]]:
        """Copy fields of located records, in their order: (B, length) for each field."""
        with self._mutex:
            table = self._mapped()
            copies = [_copy(table, slots, field) for field in fields]
            self._give_back(len(slots) * self._record_bytes)
            return copies

    def close(self) -> None:
        """Close the files; nothing can be read or written any more."""
        with self._mutex:
            self._table, self._map = self._table[:0].copy(), None
            self._trusted.clear()
            self._unseen.clear()
            self._index.close()
            self._records.close()

    def _refresh(self) -> None:
        """Read the entries written since the last time, by whomever."""
        known = len(self._checksums)
        index_size = os.fstat(self._index.fileno()).st_size
        records_size = os.fstat(self._records.fileno()).st_size
        end = min(index_size // ENTRY_BYTES, records_size // self._record_bytes)
        if end <= known:
            return
        data = _read(self._index, known * ENTRY_BYTES, (end - known) * ENTRY_BYTES)
        whole = len(data) // ENTRY_BYTES * ENTRY_BYTES
        for slot, (one, checksum, own) in enumerate(_ENTRY.iter_unpack(data[:whole]), start=known):
            self._checksums.append(checksum)
            if own == _entry_checksum(one, checksum, slot) and one not in self._trusted:
                self._unseen[one] = slot

    def _verify(self, ids: Sequence[bytes]) -> None:
        """Forget the records among these that are not what was written; each is read once."""
        asked = {one: slot for one in ids if (slot := self._unseen.pop(one, None)) is not None}
        if not asked:
            return
        self._mapped()
        for one, slot in sorted(asked.items(), key=lambda item: item[1]):
            record = memoryview(self._map or b"")[slot * self._record_bytes :][: self._record_bytes]
            if zlib.crc32(record, zlib.crc32(one)) == self._checksums[slot]:
                self._trusted[one] = slot
            self._give_back(self._record_bytes)

    def _write_new(self, ids: Sequence[bytes], rows: NDArray[np.uint8]) -> int:
        """Write the records whose ids are new and give the bytes; called under the lock."""
        self._refresh()
        self._verify(ids)
        new = _find_new(self._trusted, ids)
        if not new:
            return 0
        start = os.fstat(self._index.fileno()).st_size // ENTRY_BYTES
        chosen = rows if len(new) == len(rows) else rows[list(new.values())]
        entries = bytearray()
        for slot, (one, row) in enumerate(zip(new, chosen, strict=True), start=start):
            checksum = zlib.crc32(row, zlib.crc32(one))
            entries += _ENTRY.pack(one, checksum, _entry_checksum(one, checksum, slot))
        try:
            _write(self._records, start * self._record_bytes, chosen.reshape(-1).data)
            _write(self._index, start * ENTRY_BYTES, memoryview(entries))
        except OSError:
            self._cut_tail()
            raise
        self._refresh()
        for slot, one in enumerate(new, start=start):
            self._unseen.pop(one, None)
            self._trusted[one] = slot
        return chosen.nbytes + len(entries)

    def _cut_tail(self) -> None:
        """Give back what no whole entry names; readers may already see whole ones."""
        end = os.fstat(self._index.fileno()).st_size // ENTRY_BYTES
        self._index.truncate(end * ENTRY_BYTES)
        if os.fstat(self._records.fileno()).st_size > end * self._record_bytes:
            self._records.truncate(end * self._record_bytes)

    def _mapped(self) -> NDArray[np.void]:
        """Give all records that entries name as an array (slots,) of R bytes, read-only."""
        num_slots = len(self._checksums)
        if len(self._table) < num_slots:
            length = num_slots * self._record_bytes
            self._map = mmap.mmap(self._records.fileno(), length, access=mmap.ACCESS_READ)
            self._table = np.frombuffer(self._map, dtype=self._table.dtype)
        return self._table

    def _give_back(self, num_bytes: int) -> None:
        """Count what was read; now and then let the system have the mapped pages."""
        self._num_read += num_bytes
        if self._num_read < _RESIDENT_BYTES or self._map is None:
            return
        self._num_read = 0
        if len(self._map) > _RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class RecordMemory:
    """Records in the memory of this process.

    Memory is taken for the whole budget at once, which costs nothing: the system gives pages when
    they are first written. So nothing is ever copied to make room.

    Args:
        record_bytes: R, at least 1.
        budget_bytes: What all records together may take.
    """

    def __init__(self, record_bytes: int, *, budget_bytes: int) -> None:
        self._record_bytes = record_bytes
        self._budget_bytes = budget_bytes
        self._mutex = threading.RLock()
        self._slots: dict[bytes, int] = {}
        self._rows: NDArray[np.uint8] = np.empty((0, record_bytes), dtype=np.uint8)

    @property
    def num_records(self) -> int:
        """Ids that can be read now."""
        return len(self._slots)

    def missing(self, ids: Sequence[bytes]) -> list[int]:
        """Give the positions of the ids that are not stored."""
        return [position for position, one in enumerate(ids) if one not in self._slots]

    def append(self, ids: Sequence[bytes], rows: NDArray[np.uint8]) -> None:
        """Store records (B, R) under B ids; those already stored are passed over.

        Raises:
            StoreFullError: They would exceed the budget, or what memory there is; none is stored.
        """
        with self._mutex:
            new = _find_new(self._slots, ids)
            start = len(self._slots)
            end = start + len(new)
            if end * self._record_bytes > self._budget_bytes:
                raise StoreFullError(
                    "no more activations are stored: they would exceed the budget of "
                    f"{size_words(self._budget_bytes)} of memory"
                )
            if not len(self._rows):
                self._rows = self._allocate()
            self._rows[start:end] = rows[list(new.values())]
            self._slots.update(zip(new, range(start, end), strict=True))

    def locate(self, ids: Sequence[bytes]) -> NDArray[np.int64]:
        """Give where the record of each id stands (B,).

        Raises:
            KeyError: An id is not stored.
        """
        return _find(self._slots, ids)

    def gather(self, slots: NDArray[np.int64], fields: Sequence[Field]) -> list[NDArray[np.uint8]]:
        """Copy fields of located records, in their order: (B, length) for each field."""
        table = self._rows.view(f"V{self._record_bytes}").reshape(-1)
        return [_copy(table, slots, field) for field in fields]

    def close(self) -> None:
        """Free the memory."""
        self._slots.clear()
        self._rows = self._rows[:0].copy()

    def _allocate(self) -> NDArray[np.uint8]:
        """Take memory for the whole budget; its pages are given when they are written."""
        length = self._budget_bytes // self._record_bytes
        try:
            return np.empty((length, self._record_bytes), dtype=np.uint8)
        except MemoryError as error:
            raise StoreFullError(
                f"no more activations are stored: {size_words(self._budget_bytes)} of memory "
                "cannot be had"
            ) from error


def _open(path: Path) -> BinaryIO:
    """Open a file for reading and writing without a buffer; it is made where there is none."""
    path.touch()
    return path.open("r+b", buffering=0)


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    """Read at an offset; fewer bytes where the file ends."""
    if hasattr(os, "pread"):  # a forked worker shares the place in the file, so it is not used
        return os.pread(file.fileno(), length, offset)
    file.seek(offset)
    return file.read(length)


def _write(file: BinaryIO, offset: int, data: memoryview) -> None:
    """Write all of the data at an offset; the system may take it in pieces."""
    while len(data):
        if hasattr(os, "pwrite"):
            num_bytes = os.pwrite(file.fileno(), data, offset)
        else:
            file.seek(offset)
            num_bytes = file.write(data)
        offset, data = offset + num_bytes, data[num_bytes:]


def _find(slots: dict[bytes, int], ids: Sequence[bytes]) -> NDArray[np.int64]:
    """Give the slot of each id (B,); raises KeyError where one has none."""
    return np.fromiter(map(slots.__getitem__, ids), dtype=np.int64, count=len(ids))


def _find_new(slots: dict[bytes, int], ids: Sequence[bytes]) -> dict[bytes, int]:
    """Give the row of each id that has no slot, in order; of an id given twice the first row."""
    rows: dict[bytes, int] = {}
    for row, one in enumerate(ids):
        if one not in slots:
            rows.setdefault(one, row)
    return rows


def _entry_checksum(one: bytes, checksum: int, slot: int) -> int:
    """Give the checksum of an entry, which also says where it stands."""
    return zlib.crc32(_ENTRY.pack(one, checksum, slot & 0xFFFFFFFF))


def _copy(table: NDArray[np.void], slots: NDArray[np.int64], field: Field) -> NDArray[np.uint8]:
    """Copy one field (offset, length) of records: (B, length)."""
    offset, length = field
    if not length or not len(slots):
        return np.empty((len(slots), length), dtype=np.uint8)
    layout = np.dtype(
        {"names": ["f"], "formats": [f"V{length}"], "offsets": [offset], "itemsize": table.itemsize}
    )
    # Careful: `take` would first copy all of a source whose rows are not adjacent.
    copied = table.view(layout)["f"][slots]
    return copied.view(np.uint8).reshape(len(slots), length)
