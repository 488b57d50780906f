"""Checkpoints: the state of training on disk, so that a run that ended early can go on.

One file each, `checkpoints/<number>.safetensors`, written whole or not at all: the tensors, and as
metadata everything else in JSON, with a checksum over both. Nothing is pickled. A checkpoint that
is damaged is told and the one before it is used, so two are kept. How often one is written follows
from what one costs: the recipe says which share of the time they may take.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from finetune.errors import FinetuneError
from finetune.runtime.files import make_folder, sweep, write_with
from finetune.runtime.space import GIB, free_disk, size_words
from finetune.runtime.tensors import save_tensors

__all__ = ["Checkpoints", "Keeper", "has_checkpoint"]

_FORMAT = 1
_NUM_KEPT = 2  # the newest may be damaged
_LEFT_FREE_BYTES = GIB // 2  # of the disk: for the model and the tables at the end

State = dict[str, Any]  # nested mappings, sequences and plain values, with tensors among them


def has_checkpoint(folder: Path) -> bool:
    """Tell whether a folder of checkpoints holds one that is whole."""
    return any(_read(path) is not None for path in folder.glob("[0-9]*.safetensors"))


@dataclass(slots=True)
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: Where they stand; it is made with the first.
        share: Largest share of the time that they may take, in [0, 1]; 0 writes none.
        budget_bytes: Of disk, for all that are kept.
        warn: Receives a sentence about one that could not be written, or is damaged.
    """

    folder: Path
    share: float
    budget_bytes: int
    warn: Callable[[str], None]
    _cost_seconds: float = 0.0
    _written_at: float = field(default_factory=time.perf_counter)
    _has_warned: bool = False

    def is_due(self) -> bool:
        """Whether the last one has been paid for by the time since."""
        waited = time.perf_counter() - self._written_at
        return self.share > 0 and waited * self.share >= self._cost_seconds

    def write(self, state: State) -> None:
        """Write a checkpoint; where there is no room for it say so once, and go on."""
        started = time.perf_counter()
        tensors: dict[str, torch.Tensor] = {}
        document = json.dumps(_pack(state, tensors, ""))
        size = len(document) + sum(tensor.nbytes for tensor in tensors.values())
        reason = self._why_no_room(size)
        if not reason:
            reason = self._write(tensors, document)
        if reason and not self._has_warned:
            self._has_warned = True
            self.warn(f"no checkpoint was written: {reason}; the run goes on without")
        now = time.perf_counter()
        self._cost_seconds, self._written_at = now - started, now

    def newest(self) -> State | None:
        """Read the newest that is whole; None where there is none."""
        for path in reversed(self._paths()):
            state = _read(path)
            if state is not None:
                return state
            self.warn(f"{path} is damaged; the checkpoint before it is used")
        return None

    def remove(self) -> None:
        """Remove all: the run is over."""
        for path in self._paths():
            path.unlink()
        sweep(self.folder)
        with suppress(OSError):  # it is gone already, or holds what somebody else put there
            self.folder.rmdir()

    def _paths(self) -> list[Path]:
        """List them, oldest first."""
        return sorted(self.folder.glob("[0-9]*.safetensors"))

    def _why_no_room(self, size: int) -> str:
        """Say why one of this size cannot be written; empty where it can."""
        if _NUM_KEPT * size > self.budget_bytes:
            budget = size_words(self.budget_bytes)
            return f"{_NUM_KEPT} of {size_words(size)} are more than their budget of {budget}"
        if size + _LEFT_FREE_BYTES > free_disk(self.folder):
            return f"it takes {size_words(size)}, and the disk has no more room"
        return ""

    def _write(self, tensors: dict[str, torch.Tensor], document: str) -> str:
        """Write one, then remove what is no longer kept; say what prevented it."""
        paths = self._paths()
        number = int(paths[-1].stem) + 1 if paths else 1
        metadata = {"state": document, "checksum": _checksum(tensors, document)}

        def save(path: Path) -> None:
            save_tensors(tensors, path, metadata)
            with path.open("r+b") as stream:  # Windows refuses to flush what cannot be written
                os.fsync(stream.fileno())

        try:
            make_folder(self.folder)
            sweep(self.folder)
            write_with(self.folder / f"{number:08d}.safetensors", save)
        except FinetuneError as error:
            return error.message
        for path in self._paths()[:-_NUM_KEPT]:
            path.unlink(missing_ok=True)
        return ""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Takes the state of training when it is due, or when somebody interrupts.

    Attributes:
        checkpoints: Where it is kept; None to keep none.
        take: Gives the state; called only where training is between two steps.
    """

    checkpoints: Checkpoints | None
    take: Callable[[], State]

    def look(self) -> None:
        """Save the state if that is due."""
        if self.checkpoints is not None and self.checkpoints.is_due():
            self.checkpoints.write(self.take())

    def save(self) -> None:
        """Save the state now, if any is kept."""
        if self.checkpoints is not None and self.checkpoints.share > 0:
            self.checkpoints.write(self.take())

    @contextmanager
    def interruptions_saved(self) -> Iterator[None]:
        """Save the state where a `with` block that changes nothing of it is interrupted."""
        try:
            yield
        except KeyboardInterrupt:
            self.save()
            raise


def _read(path: Path) -> State | None:
    """Read a checkpoint; None where it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: Windows removes no file of which a tensor is left.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    document = metadata.get("state", "")
    if metadata.get("checksum") != _checksum(tensors, document):
        return None
    state: State = _unpack(json.loads(document), tensors)
    return state


def _checksum(tensors: dict[str, torch.Tensor], document: str) -> str:
    """Sum up a checkpoint: format, document, and every tensor with its name."""
    digest = hashlib.blake2b(f"{_FORMAT} {document}".encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _pack(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """Write a nested value as JSON; its tensors are put aside under their paths."""
    if isinstance(value, torch.Tensor):
        # A copy: safetensors takes contiguous tensors only, and none that share memory.
        plain = torch.contiguous_format
        tensors[name] = value.detach().to("cpu", copy=True, memory_format=plain)
        return {"tensor": name}
    if isinstance(value, dict):
        return {
            "dict": [[key, _pack(part, tensors, f"{name}/{key}")] for key, part in value.items()]
        }
    if isinstance(value, list | tuple):
        parts = [_pack(part, tensors, f"{name}/{index}") for index, part in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    return value


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Read what `_pack` wrote."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(part, tensors) for key, part in content}
    parts = [_unpack(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
