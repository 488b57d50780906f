"""What crosses the freeze boundary, stored once per image: on disk for all runs, or in memory.

A store is of one key: everything an activation depends on except the image. A record is of one id:
the content of an image and the view of it. So whatever changes, an image, a transform, a weight, a
version, leads to another store or another record, never to a wrong activation. What is on disk is
checked before it is used (`runtime/records.py`) and removed when the cache is over its budget
(`runtime/stores.py`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch

from finetune.errors import FinetuneError
from finetune.model.store_key import Dtype, StoreKey, image_id
from finetune.runtime.records import RecordFile, RecordMemory
from finetune.runtime.space import KEPT_FREE_BYTES, free_memory, size_words
from finetune.runtime.stores import (
    DEFAULT_CACHE_BYTES,
    ENTRY_BYTES,
    StoreFullError,
    hold_store,
    make_room,
    stores_folder,
)
from finetune.types import Choice

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from finetune.runtime.records import Field, Records

__all__ = [
    "ALL_MEMORY",
    "ActivationStore",
    "Budgets",
    "Place",
    "Shape",
    "StoreFullError",
    "StoreKey",
    "choose_place",
    "image_id",
    "num_bytes_per_image",
    "num_bytes_stored",
    "open_store",
]

Shape = tuple[int, ...]  # of one tensor of one image, without the batch
Place = Literal["memory", "disk", "none"]

_FORMAT = 1  # of the files; part of a store's name, so another format is another store
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class Budgets:
    """What stored activations may take.

    Attributes:
        disk_bytes: All stores on disk together; 0 for none there.
        memory_share: One store in memory, as a share of what is free when it is chosen, in [0, 1];
            training and other processes need the rest.
    """

    disk_bytes: int = DEFAULT_CACHE_BYTES
    memory_share: float = 0.5


ALL_MEMORY = Budgets(disk_bytes=0, memory_share=1.0)  # of what is needed in memory anyway


def num_bytes_per_image(shapes: Sequence[Shape], dtype: Dtype) -> int:
    """Count what one image takes on disk.

    >>> num_bytes_per_image([(1280,)], "float32")
    5144
    """
    return sum(map(math.prod, shapes)) * _DTYPES[dtype].itemsize + ENTRY_BYTES


def choose_place(
    num_images: int,
    num_views: int,
    bytes_per_image: int,
    *,
    free_disk: int,
    free_memory: int,
    budgets: Budgets,
) -> Choice[Place]:
    """Choose where activations are stored; on disk if possible, since later runs use them too.

    Args:
        num_images: N.
        num_views: Views of each image.
        bytes_per_image: Of one view.
        free_disk: Bytes that may be written; 0 for a cache that cannot be written.
        free_memory: Bytes of memory that are free.
        budgets: What may be taken.
    """
    needed = num_images * num_views * bytes_per_image
    size = size_words(needed)
    room = max(0, free_disk - KEPT_FREE_BYTES)
    if needed <= min(budgets.disk_bytes, room):
        budget = size_words(budgets.disk_bytes)
        return Choice("disk", f"{size} on disk, within the budget of {budget}")
    if needed > budgets.disk_bytes:
        reason = f"the budget on disk is {size_words(budgets.disk_bytes)}"
    elif not free_disk:
        reason = "the cache cannot be written"
    else:
        kept = size_words(KEPT_FREE_BYTES)
        reason = f"the disk has {size_words(free_disk)} free, of which {kept} stay free"
    most = int(budgets.memory_share * free_memory)
    if needed <= most:
        return Choice(
            "memory", f"{size} in memory, of {size_words(most)} that may be used: {reason}"
        )
    return Choice(
        "none", f"{size} do not fit: {reason}, and {size_words(most)} of memory may be used"
    )


def num_bytes_stored(key: StoreKey, shapes: Sequence[Shape]) -> int:
    """Count the bytes on disk of the store of a key; 0 where there is none."""
    folder = stores_folder() / _name(_header(key, shapes))
    try:
        return sum(entry.stat().st_size for entry in folder.iterdir())
    except OSError:
        return 0


def open_store(
    key: StoreKey,
    shapes: Sequence[Shape],
    *,
    label: str,
    place: Literal["memory", "disk"] = "disk",
    budgets: Budgets | None = None,
    folder: Path | None = None,
) -> ActivationStore:
    """Open the store of a key, empty if there is none; in memory where the disk cannot be written.

    Args:
        key: What activations depend on.
        shapes: Of the tensors of one image, in order; at least one value in all.
        label: What they are of, in words, for `finetune cache ls`.
        place: Where to store.
        budgets: What may be taken; None for the defaults.
        folder: Of all stores; None for that of the cache.

    Returns:
        The store; its `place` says where it is, and why.
    """
    limits = budgets or Budgets()
    layout = _Layout(tuple(map(tuple, shapes)), key.dtype, key.memory_format == "channels_last")
    if not all(map(math.prod, layout.shapes)) or not layout.shapes:
        raise ValueError(f"there is nothing to store in shapes {layout.shapes}")
    reason = "asked for" if place == "memory" else "the budget on disk is 0 B"
    if place == "disk" and limits.disk_bytes:
        try:
            return _open_on_disk(key, layout, label, limits, folder or stores_folder())
        except FinetuneError as error:
            reason = error.message
    most = int(limits.memory_share * free_memory())
    records = RecordMemory(layout.num_bytes, budget_bytes=most)
    return ActivationStore(records, layout, Choice("memory", f"in memory: {reason}"), ExitStack())


class ActivationStore:
    """Activations by image: tuples of tensors, in the order of the shapes.

    Made by `open_store`; a context manager. Several threads may use one at once. A process forked
    from the one that opened it may read but not add.

    Attributes:
        place: Where it is, and why.
        is_full: Whether it has said that it takes no more.
    """

    def __init__(
        self,
        records: Records,
        layout: _Layout,
        place: Choice[Literal["memory", "disk"]],
        held: ExitStack,
    ) -> None:
        self._records = records
        self._layout = layout
        self._held = held
        self.place = place
        self.is_full = False

    @property
    def num_images(self) -> int:
        """Ids that can be read now, as far as this process knows."""
        return self._records.num_records

    def missing(self, ids: Sequence[bytes]) -> list[int]:
        """Give the positions of the ids that must be computed.

        Sees what other processes have stored meanwhile. Reads and checks each record the first
        time that it is asked for; a damaged one is missing.
        """
        return self._records.missing(ids)

    def add(self, ids: Sequence[bytes], tensors: Sequence[torch.Tensor]) -> None:
        """Store a batch; ids that are stored keep what they have.

        Args:
            ids: B ids.
            tensors: (B, …) each, in the order of the shapes; on any device; cast to the key's
                dtype.

        Raises:
            StoreFullError: It takes no more; what it holds stays right. Said once: what is added
                after that is dropped without a word.
            ValueError: The shapes are not those of the store.
        """
        self._layout.check(tensors, len(ids))
        if self.is_full or not ids:
            return
        try:
            self._records.append(ids, self._layout.pack(tensors).numpy())
        except StoreFullError:
            self.is_full = True
            raise

    def read(self, ids: Sequence[bytes]) -> tuple[torch.Tensor, ...]:
        """Copy a batch, in the order of the ids, which may repeat.

        Returns:
            (B, …) each, in the order of the shapes, in the key's dtype, on the CPU.

        Raises:
            KeyError: An id is not stored; `missing` tells beforehand.
        """
        return self.read_at(self.locate(ids))

    def locate(self, ids: Sequence[bytes]) -> torch.Tensor:
        """Give where the records of ids stand: (B,) int64, for as long as this store is open.

        Who reads the same images every epoch locates them once and reads `at[order]`: looking ids
        up costs as much as copying small records.

        Raises:
            KeyError: An id is not stored.
        """
        return torch.from_numpy(self._records.locate(ids))

    def read_at(self, places: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Copy a batch as `read` does, by what `locate` gave: (B,) int64."""
        gathered = self._records.gather(places.numpy(), self._layout.fields)
        return self._layout.unpack(gathered, len(places))

    def close(self) -> None:
        """Let go of files and memory; the store can no longer be used."""
        self._records.close()
        self._held.close()

    def __enter__(self) -> ActivationStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the tensors of one image stand in a record: one after the other, without gaps."""

    shapes: tuple[Shape, ...]
    dtype: Dtype
    is_channels_last: bool

    @property
    def num_bytes(self) -> int:
        """Length of a record."""
        return sum(length for _, length in self.fields)

    @property
    def fields(self) -> list[Field]:
        """Offset and length of each tensor, in bytes."""
        fields: list[Field] = []
        for shape in self.shapes:
            offset = sum(fields[-1]) if fields else 0
            fields.append((offset, math.prod(shape) * _DTYPES[self.dtype].itemsize))
        return fields

    def check(self, tensors: Sequence[torch.Tensor], num_images: int) -> None:
        """Refuse tensors that are not a batch of this layout."""
        expected = [(num_images, *shape) for shape in self.shapes]
        found = [tuple(tensor.shape) for tensor in tensors]
        if found != expected:
            raise ValueError(f"the store takes tensors of shapes {expected}, not {found}")

    def pack(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Give the records (B, R) uint8 of a batch."""
        parts = []
        for tensor in tensors:
            values = tensor.detach().to(device="cpu", dtype=_DTYPES[self.dtype])
            if self._is_turned(tensor.ndim):
                values = values.movedim(1, -1)
            parts.append(values.contiguous().reshape(len(values), -1).view(torch.uint8))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def unpack(
        self, gathered: Sequence[NDArray[np.uint8]], num_images: int
    ) -> tuple[torch.Tensor, ...]:
        """Give the fields of records, (B, length) each, as tensors."""
        tensors = []
        for shape, copied in zip(self.shapes, gathered, strict=True):
            values = torch.from_numpy(copied.reshape(-1)).view(_DTYPES[self.dtype])
            if self._is_turned(len(shape) + 1):
                channels, height, width = shape
                values = values.view(num_images, height, width, channels).movedim(-1, 1)
            else:
                values = values.view(num_images, *shape)
            tensors.append(values)
        return tuple(tensors)

    def _is_turned(self, num_dims: int) -> bool:
        """Whether a batch of so many dimensions is stored with its channels last."""
        return self.is_channels_last and num_dims == 4


def _header(key: StoreKey, shapes: Sequence[Shape]) -> dict[str, object]:
    """Say what a store is of."""
    return {"format": _FORMAT, "shapes": [list(shape) for shape in shapes], **asdict(key)}


def _name(header: dict[str, object]) -> str:
    """Name a store by what it is of."""
    text = json.dumps(header, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def _open_on_disk(
    key: StoreKey, layout: _Layout, label: str, budgets: Budgets, folder: Path
) -> ActivationStore:
    """Open a store in a folder; raises FinetuneError where that cannot be written."""
    header = _header(key, layout.shapes)
    hold = hold_store(folder, _name(header), header=header, label=label)
    with ExitStack() as held:
        held.callback(hold.release)
        reserve = partial(make_room, folder, budget_bytes=budgets.disk_bytes)
        try:
            records = RecordFile(hold.path, layout.num_bytes, reserve=reserve)
        except OSError as error:
            raise FinetuneError(f"cannot write {hold.path}: {error.strerror or error}") from error
        return ActivationStore(records, layout, Choice("disk", f"in {hold.path}"), held.pop_all())
