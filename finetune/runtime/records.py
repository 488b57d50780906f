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
_FIRST_CHUNK_BYTES = 16 << 20  # of memory; each later chunk doubles what there is
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

    def gather(self, ids: Sequence[bytes], fields: Sequence[Field]) -> list[NDArray[np.uint8]]:
        """Copy fields of records, in the order of the ids: (B, length) for each field.

        Raises:
            KeyError: An id is not stored.
        """
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
        self._slots: dict[bytes, int] = {}
        self._checksums = array("I")
        self._is_verified = bytearray()
        self._map: mmap.mmap | None = None
        self._table: NDArray[np.void] = np.empty(0, dtype=f"V{record_bytes}")
        self._num_read = 0

    @property
    def num_records(self) -> int:
        """Ids that can be read now, as far as this process knows."""
        return len(self._slots)

    def missing(self, ids: Sequence[bytes]) -> list[int]:
        """Give the positions of the ids that are not stored, or not as they were written.

        What other processes have written since is seen. Each record is read in full the first time.
        """
        with self._mutex:
            self._refresh()
            self._verify(ids)
            return [position for position, one in enumerate(ids) if one not in self._slots]

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

    def gather(self, ids: Sequence[bytes], fields: Sequence[Field]) -> list[NDArray[np.uint8]]:
        """Copy fields of records, in the order of the ids: (B, length) for each field.

        Raises:
            KeyError: An id is not stored.
        """
        with self._mutex:
            self._verify(ids)
            slots = np.fromiter(map(self._slots.__getitem__, ids), dtype=np.int64, count=len(ids))
            table = self._mapped()
            copies = [_copy(table, slots, field) for field in fields]
            self._give_back(len(ids) * self._record_bytes)
            return copies

    def close(self) -> None:
        """Close the files; nothing can be read or written any more."""
        with self._mutex:
            self._table, self._map = self._table[:0].copy(), None
            self._slots.clear()
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
            self._is_verified.append(0)
            if own == _entry_checksum(one, checksum, slot):
                self._slots[one] = slot

    def _verify(self, ids: Sequence[bytes]) -> None:
        """Forget the records among these that are not what was written; each is read once."""
        slots = ((self._slots.get(one), one) for one in ids)
        asked = {slot: one for slot, one in slots if slot is not None}
        unseen = sorted(slot for slot in asked if not self._is_verified[slot])
        if not unseen:
            return
        self._mapped()
        for slot in unseen:
            record = memoryview(self._map or b"")[slot * self._record_bytes :][: self._record_bytes]
            if zlib.crc32(record, zlib.crc32(asked[slot])) == self._checksums[slot]:
                self._is_verified[slot] = 1
            else:
                del self._slots[asked[slot]]
            self._give_back(self._record_bytes)

    def _write_new(self, ids: Sequence[bytes], rows: NDArray[np.uint8]) -> int:
        """Write the records whose ids are new and give the bytes; called under the lock."""
        self._refresh()
        self._verify(ids)
        new = {one: row for row, one in reversed(list(enumerate(ids))) if one not in self._slots}
        if not new:
            return 0
        start = os.fstat(self._index.fileno()).st_size // ENTRY_BYTES
        order = sorted((row, one) for one, row in new.items())
        chosen = rows if len(order) == len(rows) else rows[[row for row, _ in order]]
        entries = bytearray()
        for slot, ((_, one), row) in enumerate(zip(order, chosen, strict=True), start=start):
            checksum = zlib.crc32(row, zlib.crc32(one))
            entries += _ENTRY.pack(one, checksum, _entry_checksum(one, checksum, slot))
        try:
            _write(self._records, start * self._record_bytes, chosen.reshape(-1).data)
            _write(self._index, start * ENTRY_BYTES, memoryview(entries))
        except OSError:
            self._cut_tail()
            raise
        self._refresh()
        for slot in range(start, start + len(order)):
            self._is_verified[slot] = 1
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
        if self._num_read > _RESIDENT_BYTES and self._map is not None:
            self._num_read = 0
            if hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED)


class RecordMemory:
    """Records in the memory of this process, in chunks that double: nothing is ever copied.

    Args:
        record_bytes: R, at least 1.
        budget_bytes: What all records together may take.
    """

    def __init__(self, record_bytes: int, *, budget_bytes: int) -> None:
        self._record_bytes = record_bytes
        self._budget_bytes = budget_bytes
        self._mutex = threading.RLock()
        self._slots: dict[bytes, int] = {}
        self._chunks: list[NDArray[np.uint8]] = []
        self._starts: list[int] = []  # first slot of each chunk

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
            StoreFullError: They would exceed the budget; none of them is stored.
        """
        with self._mutex:
            new = {one for one in ids if one not in self._slots}
            if (len(self._slots) + len(new)) * self._record_bytes > self._budget_bytes:
                raise StoreFullError(
                    "no more activations are stored: they would exceed the budget of "
                    f"{size_words(self._budget_bytes)} of memory"
                )
            for one, row in zip(ids, rows, strict=True):
                if one not in self._slots:
                    self._place(one, row)

    def gather(self, ids: Sequence[bytes], fields: Sequence[Field]) -> list[NDArray[np.uint8]]:
        """Copy fields of records, in the order of the ids: (B, length) for each field.

        Raises:
            KeyError: An id is not stored.
        """
        slots = np.fromiter(map(self._slots.__getitem__, ids), dtype=np.int64, count=len(ids))
        copies = [np.empty((len(ids), length), dtype=np.uint8) for _, length in fields]
        for start, chunk in zip(self._starts, self._chunks, strict=True):
            table = chunk.view(f"V{self._record_bytes}")[:, 0]
            inside = np.flatnonzero((slots >= start) & (slots < start + len(chunk)))
            if len(inside) == len(slots) and len(slots):
                return [_copy(table, slots - start, field) for field in fields]
            for copy, field in zip(copies, fields, strict=True):
                copy[inside] = _copy(table, slots[inside] - start, field)
        return copies

    def close(self) -> None:
        """Free the memory."""
        self._slots.clear()
        self._chunks, self._starts = [], []

    def _place(self, one: bytes, row: NDArray[np.uint8]) -> None:
        """Copy a record to the next slot."""
        slot = len(self._slots)
        end = self._starts[-1] + len(self._chunks[-1]) if self._chunks else 0
        if slot == end:
            length = max(slot, _FIRST_CHUNK_BYTES // self._record_bytes, 1)
            self._chunks.append(np.empty((length, self._record_bytes), dtype=np.uint8))
            self._starts.append(slot)
        self._chunks[-1][slot - self._starts[-1]] = row
        self._slots[one] = slot


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
