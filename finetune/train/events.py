"""What happens in a run, as frozen events: one callback receives them all.

The command line draws them, the log writes them, tests collect them. They replace callback classes
and hooks. Every event is plain data, so that `events.jsonl` holds all of it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from finetune.types import Index, LeftOut, Progress

__all__ = [
    "AuditRow",
    "DataFound",
    "EpochEnded",
    "Event",
    "FrozenLayers",
    "OnEvent",
    "Progressed",
    "RecipeResolved",
    "Resumed",
    "RunEnded",
    "RunStarted",
    "StageEnded",
    "StageStarted",
    "Warned",
    "progress_events",
]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run has its folder.

    Attributes:
        run: Path of the run folder.
        backbone: The backbone's name.
        data: Path of the data.
    """

    run: str
    backbone: str
    data: str


@dataclass(frozen=True, slots=True)
class DataFound:
    """The data was read, checked and split.

    Attributes:
        classes: Class names in order.
        counts: Images by split (`train`, `val`, `test`), each by class name.
        left_out: What takes no part, and why.
    """

    classes: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def from_index(cls, index: Index) -> "DataFound":
        """Count the samples of an index by split and class."""
        counts: dict[str, dict[str, int]] = {}
        for sample in index.samples:
            part = counts.setdefault(str(sample.split), dict.fromkeys(index.classes, 0))
            part[str(sample.label)] = part.get(str(sample.label), 0) + 1
        return cls(index.classes, counts, index.left_out)


@dataclass(frozen=True, slots=True)
class RecipeResolved:
    """Every automatic value was chosen.

    Attributes:
        reasons: Value and reason by dotted path; `input` says what an image becomes.
        estimate_seconds: What the run is expected to take from here; None where unknown.
    """

    reasons: dict[str, str]
    estimate_seconds: float | None


@dataclass(frozen=True, slots=True)
class Warned:
    """Something the person should know; the run goes on."""

    message: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """A step of a long piece of work.

    Attributes:
        what: The piece of work: `check`, `features`, `train`, `val`, `predict`.
        done: Images done.
        total: Images in all.
        images_per_second: Rate since the piece began.
    """

    what: str
    done: int
    total: int
    images_per_second: float


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One depth of the network in one stage: what learns there, and how.

    Attributes:
        depth_name: `stem`, a number, or `head`.
        num_trained: Parameters that learn.
        num_frozen: Parameters that do not.
        lr: Largest learning rate in it; 0 where nothing learns.
        batch_norm: `frozen`, `trained`, `mixed`, or `none` where it has none.
    """

    depth_name: str
    num_trained: int
    num_frozen: int
    lr: float
    batch_norm: str


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins: its audit says what will learn.

    Attributes:
        stage: Its name.
        solver: `gradient` or `probe`.
        epochs: Passes over the training images.
        audit: One row a depth, from stem to head.
    """

    stage: str
    solver: str
    epochs: int
    audit: tuple[AuditRow, ...]


@dataclass(frozen=True, slots=True)
class FrozenLayers:
    """What becomes of a stage's frozen layers.

    Attributes:
        stage: Its name.
        is_stored: Whether they are computed once, and the stage reads what they gave.
        reason: Where the cut is and what is stored, or why every epoch computes them anew.
    """

    stage: str
    is_stored: bool
    reason: str


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """One epoch is over; a row of `history.csv`.

    Attributes:
        stage: Name of the stage.
        epoch: 1-based epoch within the stage.
        step: Optimiser steps since the run began.
        train_loss: Mean training loss; NaN for a probe.
        val_loss: Log loss on validation, in nats.
        val_accuracy: In [0, 1].
        val_macro_f1: In [0, 1].
        lr: Largest learning rate at the end of the epoch.
        images_per_second: Training images per second of training time.
        seconds: Seconds of the epoch, validation included.
        is_best: Whether these weights are the best so far.
    """

    stage: str
    epoch: int
    step: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    lr: float
    images_per_second: float
    seconds: float
    is_best: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run goes on from a checkpoint.

    Attributes:
        stage: The stage that was under way.
        epoch: Its epoch, 1-based.
        num_batches: Batches of the epoch that were done.
        history: The epochs that were over.
    """

    stage: str
    epoch: int
    num_batches: int
    history: tuple[EpochEnded, ...]


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage is over.

    Attributes:
        stage: Its name.
        seconds: All that it cost.
        note: Early stopping, a fall below the probe, …; empty where nothing is to be said.
    """

    stage: str
    seconds: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over and its folder complete.

    Attributes:
        run: Path of the run folder.
        model: Path of the saved model.
        chosen: Which weights were kept: stage and epoch.
        seconds: Seconds of the whole run.
    """

    run: str
    model: str
    chosen: str
    seconds: float


Event = (
    DataFound
    | EpochEnded
    | FrozenLayers
    | Progressed
    | RecipeResolved
    | Resumed
    | RunEnded
    | RunStarted
    | StageEnded
    | StageStarted
    | Warned
)
OnEvent = Callable[[Event], None]


def progress_events(what: str, on_event: OnEvent) -> Progress:
    """Make a progress callback that tells `Progressed` events, with the rate since it was made."""
    started = time.perf_counter()

    def report(done: int, total: int) -> None:
        rate = done / max(time.perf_counter() - started, 1e-9)
        on_event(Progressed(what, done, total, rate))

    return report
