"""What a run looks like while it goes on: its events, drawn on a screen one after another.

Text only; how a line or a bar reaches the terminal is `render.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from finetune.cli.render import Column, Screen, count, duration, figure
from finetune.train.events import (
    AuditRow,
    DataFound,
    EpochEnded,
    Event,
    FrozenLayers,
    Progressed,
    RecipeResolved,
    Resumed,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    Warned,
)

if TYPE_CHECKING:
    from finetune.evaluate.calibration import CalibrationFigures
    from finetune.evaluate.result import EvalResult
    from finetune.recipe.schema import Recipe

__all__ = [
    "RunDisplay",
    "show_audit",
    "show_data",
    "show_estimate",
    "show_reasons",
    "show_result",
]

_NUM_SHOWN = 20  # classes in a table: a screenful
_BRIEF_EPOCHS = 10  # a brief display shows one in so many
_NARROW = 78  # columns of the terminal below which an epoch's line leaves out rate and speed
_PIECES = {
    "check": "checking images",
    "features": "features",
    "train": "training",
    "val": "validation",
    "predict": "predicting",
    "novelty": "training photos",
}


class RunDisplay:
    """Draws the events of one run, in the order they come.

    Args:
        screen: Where to.
        is_quiet: Draw nothing, and keep the warnings for the end.
        is_brief: Leave out reasons and audits, and most epochs.
    """

    def __init__(self, screen: Screen, *, is_quiet: bool = False, is_brief: bool = False) -> None:
        self.screen = screen
        self.is_quiet = is_quiet
        self.is_brief = is_brief
        self.run: str | None = None
        self.warnings: list[str] = []  # all so far
        self._stage: StageStarted | None = None
        self._has_titles = False
        self._epoch = 1

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        if isinstance(event, RunStarted):
            self.run = event.run
        if isinstance(event, Warned):
            self.warnings.append(event.message)
        if self.is_quiet:
            return
        if isinstance(event, Progressed):
            label = self._label(event.what)
            self.screen.progress(label, event.done, event.total, event.images_per_second)
            return
        self.screen.end_progress()
        self._draw(event)

    def announce(self, recipe: Recipe) -> None:
        """Say what is about to begin, before anything slow is imported."""
        if not self.is_quiet:
            model = recipe.model
            start = "" if model.pretrained else " from random weights"
            text = f"{model.backbone}{start} on {recipe.data.path}, recipe {recipe.name}"
            self.screen.line(text, style="bold")

    def finish(self) -> None:
        """Draw the warnings that were kept for the end."""
        for warning in self.warnings if self.is_quiet else ():
            self.screen.warn(warning)

    def _draw(self, event: Event) -> None:
        """Draw an event that is not progress."""
        match event:
            case RunStarted():
                self.screen.line(f"run folder: {event.run}")
            case DataFound():
                show_data(self.screen, event)
            case RecipeResolved():
                if not self.is_brief:
                    show_reasons(self.screen, event.reasons)
                show_estimate(self.screen, event.estimate_seconds)
            case Warned():
                self.screen.warn(event.message)
            case Resumed():
                self.screen.line(
                    f"goes on in stage {event.stage}, epoch {event.epoch}, of which batches done: "
                    f"{event.num_batches}",
                    style="bold",
                )
            case StageStarted():
                self._begin_stage(event)
            case FrozenLayers():
                how = "once" if event.is_stored else "in every epoch"
                self.screen.line(f"frozen layers are computed {how}: {event.reason}")
            case EpochEnded():
                self._end_epoch(event)
            case StageEnded():
                note = f"; {event.note}" if event.note else ""
                self.screen.line(f"stage {event.stage} took {duration(event.seconds)}{note}")
            case RunEnded():
                self.screen.line(f"weights kept: {event.chosen}")

    def _label(self, what: str) -> str:
        """Name a piece of work, within a stage by stage and epoch."""
        piece = _PIECES.get(what, what)
        if self._stage is None or what in ("check", "predict", "novelty"):
            return piece
        epochs = self._stage.epochs
        epoch = f" {self._epoch}/{epochs}" if self._stage.solver == "gradient" else ""
        return f"{self._stage.stage}{epoch} {piece}"

    def _begin_stage(self, event: StageStarted) -> None:
        """Show what learns in a stage."""
        self._stage, self._epoch, self._has_titles = event, 1, False
        if self.is_brief:
            self.screen.line(f"stage {event.stage}: {_course(event)}")
        else:
            show_audit(self.screen, event)

    def _end_epoch(self, event: EpochEnded) -> None:
        """Show one epoch as a line, the first of a stage below its headings."""
        if not self._has_titles:
            self._has_titles = True
            self.screen.line("  " + _epoch_line(_EPOCH_TITLES, self.screen.width), style="bold")
        epochs = self._stage.epochs if self._stage else event.epoch
        self._epoch = event.epoch + 1
        if self.is_brief and event.epoch not in (1, epochs) and event.epoch % _BRIEF_EPOCHS:
            return
        cells = (
            f"{event.epoch}/{epochs}",
            figure(event.train_loss),
            figure(event.val_loss),
            figure(event.val_accuracy),
            figure(event.val_macro_f1),
            f"{event.lr:.1e}" if event.lr else "-",
            f"{event.images_per_second:.0f}",
            duration(event.seconds),
        )
        best = "  best" if event.is_best else ""
        self.screen.line("  " + _epoch_line(cells, self.screen.width) + best)


_EPOCH_TITLES = ("epoch", "train loss", "val loss", "val acc", "val F1", "lr", "img/s", "time")
_EPOCH_WIDTHS = (7, 10, 8, 7, 6, 7, 5, 11)


def show_data(screen: Screen, data: DataFound) -> None:
    """Show classes, counts by split, and what was left out and why."""
    splits = [split for split in ("train", "val", "test") if data.counts.get(split)]
    total = sum(sum(part.values()) for part in data.counts.values())
    screen.line(f"{count(total)} images, {len(data.classes)} classes", style="bold")
    columns = [Column("class", "left", is_shortened=True), *(Column(split) for split in splits)]
    rows = [
        [name, *(count(data.counts[split].get(name, 0)) for split in splits)]
        for name in data.classes
    ]
    if len(rows) > _NUM_SHOWN:
        rows = _class_range(data, splits)
    totals = ["all", *(count(sum(data.counts[split].values())) for split in splits)]
    screen.table(columns, [*rows, totals])
    if data.left_out:
        screen.line(f"left out: {count(len(data.left_out))}", style="yellow")
        for one in data.left_out[:5]:
            screen.line(f"  {one.name}: {one.reason}")
        if len(data.left_out) > 5:
            screen.line(f"  and {count(len(data.left_out) - 5)} more")


def show_reasons(screen: Screen, reasons: Mapping[str, str]) -> None:
    """Show every automatic value with its reason."""
    if reasons:
        screen.line("chosen automatically", style="bold")
    for path, reason in reasons.items():
        screen.line(f"  {path}: {reason}")


def show_estimate(screen: Screen, seconds: float | None) -> None:
    """Show how long the run is expected to take."""
    if seconds is not None:
        screen.line(f"estimated time: {duration(seconds)}")


def show_audit(screen: Screen, stage: StageStarted) -> None:
    """Show what learns in a stage: by depth, parameters, learning rate and BatchNorm."""
    audit = stage.audit
    trained = sum(row.num_trained for row in audit)
    total = trained + sum(row.num_frozen for row in audit)
    screen.line()
    screen.line(f"stage {stage.stage}: {_course(stage)}", style="bold")
    screen.line(f"  {count(trained)} of {count(total)} parameters learn")
    columns = (
        Column("depth", "left", is_shortened=True),
        Column("trained"),
        Column("frozen"),
        Column("lr"),
        Column("BatchNorm", "left"),
    )
    rows = [
        (
            row.depth_name,
            count(row.num_trained) if row.num_trained else "-",
            count(row.num_frozen) if row.num_frozen else "-",
            f"{row.lr:.1e}" if row.lr else "-",
            "-" if row.batch_norm == "none" else row.batch_norm,
        )
        for row in _merge_frozen(audit)
    ]
    screen.table(columns, rows)


def show_result(
    screen: Screen, result: EvalResult, *, role: str, table: str | None, by_class: bool = True
) -> None:
    """Show the figures of one split, by class, the weakest first where they are many.

    Args:
        screen: Where to.
        result: What was evaluated.
        role: What the figures may be used for.
        table: Where all classes stand, for when they do not fit on a screen.
        by_class: Show the table of classes as well.
    """
    figures = result.figures
    screen.line(f"{result.split}: {count(figures.num_samples)} images{role}", style="bold")
    screen.line(f"  accuracy  {_with_interval(figures.accuracy, figures.accuracy_interval)}")
    screen.line(f"  macro F1  {_with_interval(figures.macro_f1, figures.macro_f1_interval)}")
    for name, text in _doubt_lines(result.calibration):
        screen.line(f"  {name:<8}  {text}")
    if by_class:
        _show_classes(screen, result, table)
    for warning in figures.warnings:
        screen.warn(warning)


def _doubt_lines(figures: CalibrationFigures) -> Iterator[tuple[str, str]]:
    """Say how honest the probabilities are, and what was withheld, where a model has it fitted."""
    error = _with_interval(figures.ece_after, figures.ece_after_interval)
    before = figures.ece_before
    yield "ECE", error if before == figures.ece_after else f"{error}, {figure(before)} before"
    if figures.coverage_of_sets is not None and figures.mean_set_size is not None:
        covered = _with_interval(figures.coverage_of_sets, figures.coverage_of_sets_interval)
        yield "in set", f"{covered}, {figures.mean_set_size:.2f} classes a set"
    if figures.num_rejected is not None:
        interval = figures.precision_of_answered_interval
        right = "-"
        if figures.precision_of_answered is not None:
            right = _with_interval(figures.precision_of_answered, interval)
        yield "answered", f"{right} right, {count(figures.num_rejected)} withheld"
    if figures.num_novel is not None:
        yield (
            "unlike",
            f"{count(figures.num_novel)} (images unlike those of training; by chance 5 %)",
        )


def _show_classes(screen: Screen, result: EvalResult, table: str | None) -> None:
    """Show the table of classes, or the weakest of them."""
    columns = (
        Column("class", "left", is_shortened=True),
        Column("precision"),
        Column("recall"),
        Column("95 %", "left"),
        Column("F1"),
        Column("images"),
    )
    classes = list(result.figures.per_class)
    if len(classes) > _NUM_SHOWN:
        classes.sort(key=lambda row: (row.f1 is None, row.f1 or 0.0, row.name))
    rows = [
        (
            row.name,
            figure(row.precision),
            figure(row.recall),
            _interval(row.recall_interval, digits=2),
            figure(row.f1),
            count(row.support),
        )
        for row in classes[:_NUM_SHOWN]
    ]
    screen.table(columns, rows)
    rest = len(classes) - _NUM_SHOWN
    if rest > 0:
        where = f": {table}" if table else ""
        screen.line(f"  the weakest {_NUM_SHOWN}; {rest} more classes have no lower F1{where}")


def _merge_frozen(audit: tuple[AuditRow, ...]) -> list[AuditRow]:
    """Put neighbouring depths in which nothing learns into one row."""
    merged: list[AuditRow] = []
    for row in audit:
        last = merged[-1] if merged else None
        if last and not (last.num_trained or row.num_trained) and last.batch_norm == row.batch_norm:
            first = last.depth_name.partition(" to ")[0]
            merged[-1] = replace(
                last,
                depth_name=f"{first} to {row.depth_name}",
                num_frozen=last.num_frozen + row.num_frozen,
            )
        else:
            merged.append(row)
    return merged


def _course(event: StageStarted) -> str:
    """Say how a stage learns."""
    if event.solver == "probe":
        return "probe, logistic regression on frozen features"
    return f"{event.epochs} epoch{'s' if event.epochs != 1 else ''}"


def _epoch_line(cells: tuple[str, ...], width: int) -> str:
    """Set the cells of an epoch's line; a narrow terminal gets fewer."""
    wide = width >= _NARROW
    kept = [
        f"{cell:>{room}}"
        for cell, room, title in zip(cells, _EPOCH_WIDTHS, _EPOCH_TITLES, strict=True)
        if wide or title not in ("lr", "img/s", "train loss")
    ]
    return "  ".join(kept)


def _class_range(data: DataFound, splits: list[str]) -> list[list[str]]:
    """Say in three rows how many images many classes have."""
    parts = [[data.counts[split].get(name, 0) for name in data.classes] for split in splits]
    return [
        ["fewest in a class", *(count(min(part)) for part in parts)],
        ["median", *(count(round(median(part))) for part in parts)],
        ["most in a class", *(count(max(part)) for part in parts)],
    ]


def _with_interval(value: float, interval: tuple[float, float] | None) -> str:
    """Write a figure and its interval."""
    tail = f"  (95 % interval {_interval(interval)})" if interval else ""
    return f"{figure(value)}{tail}"


def _interval(interval: tuple[float, float] | None, *, digits: int = 3) -> str:
    """Write the ends of an interval."""
    if interval is None:
        return "-"
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"
