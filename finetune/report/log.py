"""The log of a run: every event in `events.jsonl`, every epoch in `history.csv`, as they happen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from finetune.errors import FinetuneError
from finetune.runtime.csv_text import csv_text
from finetune.train.events import EpochEnded, Progressed, Resumed, RunEnded, Warned

if TYPE_CHECKING:
    from finetune.runtime.folder import RunFolder
    from finetune.train.events import Event, OnEvent

__all__ = ["HISTORY_COLUMNS", "RunLog"]

HISTORY_COLUMNS = (
    "stage",
    "epoch",
    "step",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "val_macro_f1",
    "lr",
    "images_per_second",
    "seconds",
)


class RunLog:
    """Receives events; keeps them until the run has its folder, and writes them from then on.

    Args:
        further: Told every event as well, after the log.
    """

    def __init__(self, further: OnEvent | None = None) -> None:
        self._further = further
        self._folder: RunFolder | None = None
        self._waiting: list[dict[str, object]] = []
        self._epochs: list[EpochEnded] = []
        self._is_told = False  # that the history could not be written

    def __call__(self, event: Event) -> None:
        """Take one event and pass it on; progress is not logged."""
        self._write(event)
        if self._further:
            self._further(event)

    def open(self, folder: RunFolder) -> None:
        """Begin to write into a folder, with what has waited first."""
        self._folder = folder
        for row in self._waiting:  # first: by its events a folder is known to be a run's
            folder.append_event(row)
        self._waiting.clear()
        self._write_history(folder)

    def _write(self, event: Event) -> None:
        """Log one event."""
        if isinstance(event, Progressed):
            return
        row = _row(event)
        if self._folder is None:
            self._waiting.append(row)
            return
        self._folder.append_event(row)
        if isinstance(event, EpochEnded):
            self._epochs.append(event)
        elif isinstance(event, Resumed):
            self._epochs = list(event.history)
        elif not isinstance(event, RunEnded):
            return
        self._write_history(self._folder)

    def _write_history(self, folder: RunFolder) -> None:
        """Write the epochs; who looks at them must not end the run.

        Windows refuses to replace a file that a person has open, say in Excel.
        """
        try:
            folder.write_text("history.csv", history_csv(self._epochs))
        except FinetuneError as error:
            if not isinstance(error.__cause__, PermissionError):  # a full disk ends the run
                raise
            if not self._is_told:
                self._is_told = True
                self(Warned(f"{error.message}; events.jsonl has its rows"))


def history_csv(epochs: Sequence[EpochEnded]) -> str:
    """Write epochs as CSV; an unknown figure is an empty cell."""
    rows = [{name: _finite(value) for name, value in asdict(epoch).items()} for epoch in epochs]
    cells = ([row[name] for name in HISTORY_COLUMNS] for row in rows)
    return csv_text([HISTORY_COLUMNS, *cells])


def _row(event: Event) -> dict[str, object]:
    """Give an event as a JSON object: its kind, the time in UTC, its values."""
    values = {name: _finite(value) for name, value in asdict(event).items()}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"event": type(event).__name__, "time": now, **values}


def _finite(value: object) -> object:
    """Replace what is not a number by None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    return value
