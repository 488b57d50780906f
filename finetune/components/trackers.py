"""Trackers: services that keep the figures of many runs side by side; each is Accelerate's own.

Each section has one verb, `tracking(place)`: a `with` block in which the service is told of a run
through a `Channel`. Leaving it ends the run there, as finished, failed or killed. What may be
raised on the way is known by `failures_of`: a run is never lost for its tracker.

Notable choices: nothing goes over a network that the person did not ask for. MLflow without a
server keeps a database in the run folder, Weights & Biases without a login writes files there, and
neither tells its makers how it is used. A server that is gone is given up after seconds, not
minutes.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from types import TracebackType
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from finetune.components.component import Component
from finetune.components.section import Section
from finetune.errors import FinetuneError, MissingExtraError, Problem, RecipeError

__all__ = [
    "Channel",
    "MlflowTracker",
    "Place",
    "TensorboardTracker",
    "TrackSection",
    "Tracker",
    "WandbTracker",
    "failures_of",
]

_FAILURES = (
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, MemoryError),
    *(FinetuneError, OSError, RuntimeError, TypeError, ValueError),
)
# What each service raises beside these; looked up where its modules are loaded.
_OWN_FAILURES = (
    ("mlflow.exceptions", "MlflowException"),
    ("sqlalchemy.exc", "SQLAlchemyError"),
    ("alembic.util.exc", "CommandError"),
    ("wandb.errors", "Error"),
)
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # on unless it is refused, since 3.2
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for data
    # Of its own 7 retries, each waiting twice as long, a run would wait four minutes for each call.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_METRICS_AT_ONCE = 1000  # MLflow refuses more in one request
_WANDB = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
_WANDB_FINISH_SECONDS = 120.0  # for what is still to be sent at the end; without it, for ever


@dataclass(frozen=True, slots=True)
class Place:
    """What a tracker is to know of a run before it begins.

    Attributes:
        name: Name of the run.
        folder: Absolute; where the tracker may write. It need not exist.
        identifier: Of the run that goes on, as its channel gave it; None where it begins.
    """

    name: str
    folder: Path
    identifier: str | None = None


@dataclass(frozen=True, slots=True)
class Channel:
    """What a tracker is told through.

    Attributes:
        identifier: What the service calls the run; empty where it needs no name to go on.
        store: Takes the values of the recipe by dotted path.
        log: Takes figures by name, and their step.
        show: Takes the name of a picture, its PNG file, and its step.
        attach: Takes a text file.
    """

    identifier: str
    store: Callable[[Mapping[str, str | float | bool]], None]
    log: Callable[[Mapping[str, float], int], None]
    show: Callable[[str, Path, int], None]
    attach: Callable[[Path], None]


class MlflowTracker(Section):
    """MLflow: a server, or a database in the run folder."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = Field(
        None,
        min_length=1,
        description="Tracking URI; of MLFLOW_TRACKING_URI if absent, else a database in the run "
        "folder.",
    )
    experiment: str = Field(
        "finetune",
        min_length=1,
        description="Experiment that the run belongs to, unless MLFLOW_EXPERIMENT_NAME or a run of "
        "MLflow that is active already names another.",
    )

    @field_validator("uri")
    @classmethod
    def _holds_no_password(cls, value: str | None) -> str | None:
        if value is not None and re.match(r"\w[\w+.-]*://[^/?#]*@", value):
            message = "holds a user or a password, and a recipe is saved with its model"
            hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            raise RecipeError([Problem("", message, hint=hint)])
        return value

    def check(self) -> None:
        """Raise a MissingExtraError where mlflow is not installed."""
        _require("mlflow")

    @contextmanager
    def tracking(self, place: Place) -> Iterator[Channel]:
        """Keep an MLflow run for the length of a block, within one that is active already."""
        with _environment(_MLFLOW):
            import mlflow
            from accelerate.tracking import MLflowTracker

            before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
            is_local = self.uri is None and before is None
            place.folder.mkdir(parents=True, exist_ok=True)
            local = f"sqlite:///{place.folder / 'mlflow.db'}"
            mlflow.set_tracking_uri(self.uri or before or local)
            try:
                outer = mlflow.active_run()  # whose parts MLflow shows only within its experiment
                within = mlflow.get_experiment(outer.info.experiment_id).name if outer else None
                tracker = MLflowTracker(
                    within or self.experiment,
                    logging_dir=(place.folder / "mlflow").as_uri() if is_local else None,
                    run_id=place.identifier,
                    run_name=place.name,
                    nested_run=True,
                )
                with _Started(tracker, mlflow.end_run):
                    yield _mlflow_channel(tracker)
            finally:
                mlflow.set_tracking_uri(before)


class TensorboardTracker(Section):
    """TensorBoard: event files in the run folder."""

    kind: Literal["tensorboard"] = "tensorboard"

    def check(self) -> None:
        """Raise a MissingExtraError where tensorboard is not installed."""
        _require("tensorboard")

    @contextmanager
    def tracking(self, place: Place) -> Iterator[Channel]:
        """Write event files for the length of a block; those of a run that goes on stay."""
        from accelerate.tracking import TensorBoardTracker

        tracker = TensorBoardTracker("tensorboard", place.folder)
        with _Started(tracker, lambda status: tracker.finish()):
            yield _tensorboard_channel(tracker)


class WandbTracker(Section):
    """Weights & Biases: its servers where one is logged in, else files in the run folder."""

    kind: Literal["wandb"] = "wandb"
    project: str = Field("finetune", min_length=1, description="Project that the run belongs to.")

    def check(self) -> None:
        """Raise a MissingExtraError where wandb is not installed."""
        _require("wandb")

    @contextmanager
    def tracking(self, place: Place) -> Iterator[Channel]:
        """Keep a run of Weights & Biases for the length of a block."""
        with _environment(_WANDB):
            import wandb
            from accelerate.tracking import WandBTracker

            place.folder.mkdir(parents=True, exist_ok=True)
            is_logged_in = "WANDB_MODE" not in os.environ and wandb.login(prompt=False)
            tracker = WandBTracker(
                self.project,
                name=place.name,
                dir=str(place.folder),
                id=place.identifier,
                resume="allow" if place.identifier else None,
                mode=os.environ.get("WANDB_MODE") or ("online" if is_logged_in else "offline"),
                settings=wandb.Settings(
                    console="off",  # what a terminal shows is its own
                    silent=True,
                    finish_timeout=_WANDB_FINISH_SECONDS,
                ),
            )
            with _Started(tracker, lambda status: tracker.tracker.finish(exit_code=1)):
                yield _wandb_channel(tracker)


def failures_of() -> tuple[type[Exception], ...]:
    """Give what was seen of trackers when a disk, a server or a library failed them."""
    loaded = ((sys.modules.get(module), name) for module, name in _OWN_FAILURES)
    own = (getattr(module, name, None) for module, name in loaded if module is not None)
    return (*_FAILURES, *(error for error in own if isinstance(error, type)))


@dataclass(frozen=True)
class _Started:
    """Starts a tracker and finishes it; `fail` ends it with a status where its block was left."""

    tracker: Any
    fail: Callable[[str], object]

    def __enter__(self) -> None:
        self.tracker.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.tracker.finish()
            return
        with suppress(*failures_of()):
            self.fail("KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED")


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, which a library has no other way to be told by."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _mlflow_channel(tracker: Any) -> Channel:
    """Tell MLflow: pictures and files are artifacts."""

    def log(figures: Mapping[str, float], step: int) -> None:
        names = list(figures)
        for start in range(0, len(names), _METRICS_AT_ONCE):
            some = names[start : start + _METRICS_AT_ONCE]
            tracker.log({name: figures[name] for name in some}, step=step)

    return Channel(
        identifier=tracker.tracker.info.run_id,
        store=tracker.store_init_configuration,
        log=log,
        show=lambda name, picture, step: tracker.log_artifact(str(picture), "plots"),
        attach=lambda file: tracker.log_artifact(str(file)),
    )


def _tensorboard_channel(tracker: Any) -> Channel:
    """Tell TensorBoard: it has no place for files but text."""

    def show(name: str, picture: Path, step: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(picture) as image:
            pixels = np.asarray(image.convert("RGB"))[None]  # (1, H, W, 3)
        tracker.log_images({name: pixels}, step=step, dataformats="NHWC")

    def attach(file: Path) -> None:
        if file.suffix == ".yaml":
            indented = file.read_text(encoding="utf-8").replace("\n", "\n    ")  # code in Markdown
            tracker.log({file.name: f"    {indented}"})

    return Channel(
        identifier="",
        store=tracker.store_init_configuration,
        log=lambda figures, step: tracker.log(dict(figures), step=step),
        show=show,
        attach=attach,
    )


def _wandb_channel(tracker: Any) -> Channel:
    """Tell Weights & Biases: files are copied to where it takes them from."""

    def show(name: str, picture: Path, step: int) -> None:
        from PIL import Image

        with Image.open(picture) as image:
            tracker.log_images({name: [image.convert("RGB")]}, step=step)

    def attach(file: Path) -> None:
        copy = copyfile(file, Path(tracker.tracker.dir) / file.name)  # it would link to the file
        tracker.tracker.save(str(copy), base_path=str(copy.parent), policy="now")

    return Channel(
        identifier=tracker.tracker.id,
        store=tracker.store_init_configuration,
        log=lambda figures, step: tracker.log(dict(figures), step=step),
        show=show,
        attach=attach,
    )


def _require(library: str) -> None:
    """Raise a MissingExtraError where a library is not installed.

    Careful: wandb writes into a folder of its own name; such a folder is no package.
    """
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"track: {{to: [{library}]}}", extra=library)


Tracker = Annotated[MlflowTracker | TensorboardTracker | WandbTracker, Component()]


class TrackSection(Section):
    """Services that are told of the run beside its folder; none unless they are named."""

    to: tuple[Tracker, ...] = Field((), description="Each at most once.")
    report: bool = Field(
        True, description="Attach report.html where files can be; it shows small photos."
    )

    @field_validator("to")
    @classmethod
    def _kinds_differ(cls, trackers: tuple[Tracker, ...]) -> tuple[Tracker, ...]:
        kinds = [tracker.kind for tracker in trackers]
        for index, kind in enumerate(kinds):
            if kind in kinds[:index]:
                raise RecipeError([Problem(str(index), f"{kind} is named twice")])
        return trackers
