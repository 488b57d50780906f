"""What trackers are told of a run: one more listener to its events, and its files at the end.

Notable choices:

- The step of every figure is the number of epochs that are over, all stages together. It only
  grows: what a tracker was told is noted in `tracking/told.json`, so that a run that goes on tells
  what is missing and nothing twice.
- Trackers are told after the log and the terminal. One that fails is warned of and told no more.
- They begin with the first stage: Accelerate's state, which its trackers need, is made for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from finetune.components.trackers import Channel, Place, Tracker, failures_of
from finetune.errors import FinetuneError
from finetune.recipe.values import to_values
from finetune.report.log import HISTORY_COLUMNS
from finetune.report.report import REPORT_NAME
from finetune.runtime.files import write_text
from finetune.train.events import EpochEnded, Resumed, RunEnded, StageStarted, Warned

if TYPE_CHECKING:
    from finetune.recipe.schema import ResolvedRecipe
    from finetune.train.events import Event, OnEvent

__all__ = ["curve_figures", "final_figures", "flat_values", "tracked"]

_FOLDER = "tracking"
_NOTE = "told.json"
_MAX_TEXT = 500  # characters of a value: what MLflow's older servers take
_MAX_REASON = 200
_CURVES = tuple(name for name in HISTORY_COLUMNS if name not in ("stage", "epoch", "seconds"))
_TABLES = ("metrics.json", "per_class.csv", "confusion_matrix.csv", "history.csv")
_PICTURE = "confusion_matrix"


@contextmanager
def tracked(recipe: ResolvedRecipe, folder: Path, *, tell: OnEvent) -> Iterator[OnEvent]:
    """Tell the trackers that a recipe names what is told in a `with` block.

    Args:
        recipe: What the run does; `track.to` names the trackers.
        folder: The run folder.
        tell: Who is told first, and of trackers that fail.

    Returns:
        A callback to tell instead. Where the block is left by an error, so is the trackers' run.
    """
    if not recipe.track.to:
        yield tell
        return
    with _Listener(recipe, folder.absolute(), tell) as listener:
        yield listener


def flat_values(recipe: ResolvedRecipe) -> dict[str, str | float | bool]:
    """Give the values of a recipe by dotted path; what is long is cut, and lists are text.

    Example:
        `stages.1.lr`: 0.0001, `stages.1.train`: "all", `model.image_size`: "[224, 224]"
    """
    return dict(_flatten(to_values(recipe, is_complete=True, mode="json"), ""))


def curve_figures(epoch: EpochEnded, *, stage_number: int) -> dict[str, float]:
    """Give the figures of an epoch by the names of `history.csv`; what is unknown is left out.

    Args:
        epoch: As it was told.
        stage_number: 1-based; a curve of its own, since trackers know no stages.
    """
    row = asdict(epoch)
    figures = {name: float(row[name]) for name in _CURVES if math.isfinite(row[name])}
    return {"stage": float(stage_number), **figures}


def final_figures(document: Mapping[str, Any]) -> dict[str, float]:
    """Give the figures of `metrics.json` by name: `test/accuracy`, `test_classes/ants/recall`.

    Of an interval the ends are `_low` and `_high`. What is undefined is left out.
    """
    figures: dict[str, float] = {}
    for split, part in document["splits"].items():
        if part is None:
            continue
        figures |= _numbers(part, f"{split}/")
        names = _distinct(list(part["per_class"]))
        for name, row in zip(names, part["per_class"].values(), strict=True):
            figures |= _numbers(row, f"{split}_classes/{name}/")
    cost = {name: document.get(name) for name in ("num_parameters", "peak_memory_mib")}
    return figures | _numbers({"seconds": document["seconds"]["total"], **cost}, "run/")


@dataclass
class _Line:
    """One tracker while it is told of a run.

    Attributes:
        tracker: Its section of the recipe.
        channel: None before it has begun and after it has failed.
        num_told: Epochs that it knows.
        ending: Ends its block.
    """

    tracker: Tracker
    channel: Channel | None = None
    num_told: int = 0
    ending: ExitStack = field(default_factory=ExitStack)


class _Listener:
    """Receives events, passes them on, and tells every tracker what concerns it.

    Left by an error, it ends every tracker's run as one that an error ended.
    """

    def __init__(self, recipe: ResolvedRecipe, folder: Path, tell: OnEvent) -> None:
        self._recipe = recipe
        self._folder = folder
        self._tell = tell
        self._epochs: list[EpochEnded] = []
        self._lines = [_Line(tracker) for tracker in recipe.track.to]
        self._has_begun = False

    def __enter__(self) -> OnEvent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._each(lambda line: _end(line, error))

    def __call__(self, event: Event) -> None:
        """Take one event."""
        self._tell(event)
        if isinstance(event, Resumed):
            self._epochs = list(event.history)
        elif isinstance(event, EpochEnded):
            self._epochs.append(event)
        if isinstance(event, Resumed | StageStarted) and not self._has_begun:
            self._has_begun = True
            self._each(self._begin)
        elif isinstance(event, EpochEnded):
            self._each(self._tell_epochs)
        elif isinstance(event, RunEnded):
            self._each(self._tell_result)

    def _each(self, work: Callable[[_Line], None]) -> None:
        """Do a piece of work for each tracker; one that fails is told no more."""
        for line in list(self._lines):
            try:
                work(line)
            except failures_of() as error:
                self._lines.remove(line)
                self._tell(Warned(_told(line.tracker.kind, error)))
                with suppress(*failures_of()):
                    _end(line, error)

    def _begin(self, line: _Line) -> None:
        """Begin a tracker's run, or go on with the one that was noted."""
        place = self._folder / _FOLDER
        place.mkdir(exist_ok=True)
        note = _read_note(place).get(line.tracker.kind)
        identifier = note["identifier"] if note else None
        tracking = line.tracker.tracking(Place(self._folder.name, place, identifier))
        line.channel = line.ending.enter_context(tracking)
        line.num_told = note["num_epochs"] if note else 0
        if note is None:
            line.channel.store(flat_values(self._recipe))
            line.channel.attach(self._folder / "recipe.yaml")
            self._note(line)
        self._tell_epochs(line)

    def _tell_epochs(self, line: _Line) -> None:
        """Tell the epochs that a tracker does not know."""
        if line.channel is None:
            return
        names = [stage.name for stage in self._recipe.stages]
        for step in range(line.num_told, len(self._epochs)):
            epoch = self._epochs[step]
            figures = curve_figures(epoch, stage_number=names.index(epoch.stage) + 1)
            line.channel.log(figures, step + 1)
            line.num_told = step + 1
            self._note(line)

    def _tell_result(self, line: _Line) -> None:
        """Tell the figures of the finished run, its chart and its files."""
        if line.channel is None:
            return
        step = len(self._epochs)
        document = json.loads((self._folder / "metrics.json").read_text(encoding="utf-8"))
        line.channel.log(final_figures(document), step)
        picture = self._folder / "plots" / f"{_PICTURE}.png"
        if picture.is_file():  # it is missing where the report could not be made
            line.channel.show(_PICTURE, picture, step)
        for name in (*_TABLES, *([REPORT_NAME] if self._recipe.track.report else [])):
            if (self._folder / name).is_file():
                line.channel.attach(self._folder / name)

    def _note(self, line: _Line) -> None:
        """Note what a tracker knows, for a run that goes on."""
        place = self._folder / _FOLDER
        identifier = line.channel.identifier if line.channel else ""
        known = {"identifier": identifier, "num_epochs": line.num_told}
        note = {**_read_note(place), line.tracker.kind: known}
        write_text(place / _NOTE, json.dumps(note, indent=1) + "\n")


def _end(line: _Line, error: BaseException | None) -> None:
    """End a tracker's run, as one that came to its end or as one that an error ended."""
    if error is None:
        line.ending.close()
    else:
        line.ending.__exit__(type(error), error, error.__traceback__)


def _read_note(place: Path) -> dict[str, Any]:
    """Read what each tracker was told; nothing where there is no note."""
    if not (place / _NOTE).is_file():
        return {}
    note: dict[str, Any] = json.loads((place / _NOTE).read_text(encoding="utf-8"))
    return note


def _told(kind: str, error: Exception) -> str:
    """Say in one sentence that a tracker failed."""
    text = error.message if isinstance(error, FinetuneError) else str(error)
    reason = " ".join(text.split())[:_MAX_REASON] or type(error).__name__
    return f"{kind} is told no more of this run, which goes on: {reason}"


def _flatten(value: Any, place: str) -> Iterator[tuple[str, str | float | bool]]:
    """Walk nested values; a list of plain ones is one value."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flatten(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        for index, inner in enumerate(value):
            yield from _flatten(inner, f"{place}.{index}")
    elif isinstance(value, bool | int | float):
        yield place, value
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        yield place, text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _numbers(row: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Give the numbers of a row; intervals become two."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if name.endswith("_interval") and value is not None:
            stem = name.removesuffix("_interval")
            numbers |= {f"{prefix}{stem}_low": value[0], f"{prefix}{stem}_high": value[1]}
        elif isinstance(value, int | float):
            numbers[f"{prefix}{name}"] = float(value)
    return numbers


def _distinct(names: Sequence[str]) -> list[str]:
    """Write class names as every tracker takes them, and no two alike."""
    plain = [re.sub(r"[^\w -]", "_", name).strip()[:100] or "_" for name in names]
    return [
        f"{name} {index}" if plain.count(name) > 1 else name for index, name in enumerate(plain)
    ]
