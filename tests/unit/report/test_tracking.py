"""What trackers are told, by what names and steps, and what becomes of one that fails."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from synthetic import Plan as RunPlan
from synthetic import write_run

from finetune.components.trackers import Channel, MlflowTracker, Place, TensorboardTracker
from finetune.recipe.load import load_recipe
from finetune.recipe.schema import ResolvedRecipe
from finetune.recipe.values import to_values
from finetune.report.tracking import curve_figures, final_figures, flat_values, tracked
from finetune.train.events import EpochEnded, Event, Resumed, RunEnded, StageStarted, Warned

STAGES = [{"name": "head", "train": "head"}, {"name": "full", "train": "all", "epochs": 2}]
NAN = float("nan")
BEGUN = StageStarted("head", "gradient", 1, ())
ENDED = RunEnded("run", "model", "stage full, epoch 2", 9.0)


def epoch(stage: str, number: int, *, train_loss: float = 0.5) -> EpochEnded:
    return EpochEnded(stage, number, 9, train_loss, 0.4, 0.9, 0.8, 1e-3, 50.0, 2.0, True)


COURSE = [epoch("head", 1), epoch("full", 1), epoch("full", 2)]


@dataclass
class Told:
    """What a tracker was told, in order."""

    values: dict[str, Any] = field(default_factory=dict)
    figures: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    fails_at: int | None = None

    def log(self, figures: Any, step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("the server\nis gone")
        self.figures.append((step, dict(figures)))

    @contextmanager
    def tracking(self, place: Place) -> Iterator[Channel]:
        self.places.append(place)
        try:
            yield Channel(
                "run-7",
                store=self.values.update,
                log=self.log,
                show=lambda name, picture, step: self.pictures.append(picture.name),
                attach=lambda file: self.files.append(file.name),
            )
        finally:
            self.ends.append("ended")

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.figures]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What TensorBoard is told, in its place."""
    one = Told()
    monkeypatch.setattr(TensorboardTracker, "tracking", lambda section, place: one.tracking(place))
    return one


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What MLflow is told, in its place."""
    one = Told()
    monkeypatch.setattr(MlflowTracker, "tracking", lambda section, place: one.tracking(place))
    return one


def make_recipe(*names: str, **track: Any) -> ResolvedRecipe:
    """A recipe with nothing left to choose, as far as trackers read it."""
    values = to_values(
        load_recipe({"stages": STAGES, "track": {"to": list(names), **track}}), is_complete=True
    )
    values["data"] |= {"path": "photos", "resize": "crop"}
    values["runtime"] |= {"device": "cpu", "precision": "fp32", "frozen_precision": "fp32"}
    values["runtime"] |= {"memory_format": "contiguous", "workers": 0}
    for stage in values["stages"]:
        stage |= {"epochs": 2, "layer_decay": 1.0, "batch_norm": "frozen", "views": 0}
    return ResolvedRecipe.read(values)


@pytest.fixture
def tell(tmp_path: Path) -> Callable[..., list[Event]]:
    """A function (recipe, events) that tells them in a run's folder, and what others heard."""
    folder = write_run(tmp_path / "run-001", RunPlan())

    def make(recipe: ResolvedRecipe, *events: Event) -> list[Event]:
        heard: list[Event] = []
        with tracked(recipe, folder, tell=heard.append) as tell_all:
            for event in events:
                tell_all(event)
        return heard

    return make


def test_values_are_flat_and_lists_are_text() -> None:
    values = flat_values(make_recipe("tensorboard"))
    assert values["stages.1.train"] == "all"
    assert values["stages.1.epochs"] == 2
    assert values["track.to.0.kind"] == "tensorboard"
    assert values["model.image_size"] == "null"
    assert all(isinstance(value, str | bool | int | float) for value in values.values())


def test_a_long_value_is_cut() -> None:
    recipe = make_recipe()
    path = recipe.data.model_copy(update={"path": "x" * 900})
    value = flat_values(recipe.model_copy(update={"data": path}))["data.path"]
    assert value == "x" * 499 + "…"


def test_a_figure_of_an_epoch_that_is_unknown_is_left_out() -> None:
    figures = curve_figures(epoch("head", 1, train_loss=NAN), stage_number=1)
    assert "train_loss" not in figures
    assert figures == {
        "stage": 1.0, "step": 9.0, "val_loss": 0.4, "val_accuracy": 0.9, "val_macro_f1": 0.8,
        "lr": 1e-3, "images_per_second": 50.0,
    }  # fmt: skip


def test_final_figures_have_the_ends_of_their_intervals(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    document = json.loads((folder / "metrics.json").read_text())
    figures = final_figures(document)
    test = document["splits"]["test"]
    assert figures["test/accuracy"] == test["accuracy"]
    assert [figures["test/accuracy_low"], figures["test/accuracy_high"]] == test[
        "accuracy_interval"
    ]
    assert figures["test_classes/ants/recall"] == test["per_class"]["ants"]["recall"]
    assert figures["val/macro_f1"] == document["splits"]["val"]["macro_f1"]
    assert figures["run/seconds"] == 90.0
    assert "test/top_5_accuracy" not in figures  # it is null


def test_classes_have_names_that_every_tracker_takes_and_no_two_alike(tmp_path: Path) -> None:
    plan = RunPlan(classes=("a(b", "a[b", "../x", "früh reif"))
    document = json.loads((write_run(tmp_path / "run", plan) / "metrics.json").read_text())
    names = {name.split("/")[1] for name in final_figures(document) if "_classes/" in name}
    assert names == {"a_b 0", "a_b 1", "___x", "früh reif"}


def test_a_run_without_trackers_is_told_as_before(tmp_path: Path) -> None:
    heard: list[Event] = []
    with tracked(make_recipe(), tmp_path, tell=heard.append) as tell_all:
        tell_all(BEGUN)
    assert heard == [BEGUN]
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_is_told_recipe_curves_figures_chart_and_files(
    told: Told, tell: Callable[..., list[Event]], tmp_path: Path
) -> None:
    chart = tmp_path / "run-001" / "plots" / "confusion_matrix.png"
    chart.parent.mkdir()
    chart.touch()
    (tmp_path / "run-001" / "report.html").touch()
    events = (BEGUN, *COURSE, ENDED)
    assert tell(make_recipe("tensorboard"), *events) == list(events)
    assert told.steps == [1, 2, 3, 3]
    assert [figures["stage"] for _, figures in told.figures[:3]] == [1.0, 2.0, 2.0]
    assert "test/accuracy" in told.figures[3][1]
    assert told.values["seed"] == 0
    assert told.pictures == ["confusion_matrix.png"]
    assert told.files[0] == "recipe.yaml"
    assert {"metrics.json", "report.html"} <= set(told.files)
    assert told.ends == ["ended"]


def test_a_report_is_not_attached_where_the_recipe_says_so(
    told: Told, tell: Callable[..., list[Event]], tmp_path: Path
) -> None:
    (tmp_path / "run-001" / "report.html").touch()
    tell(make_recipe("tensorboard", report=False), BEGUN, *COURSE, ENDED)
    assert "metrics.json" in told.files
    assert "report.html" not in told.files


def test_a_run_that_goes_on_tells_what_is_missing_and_nothing_twice(
    told: Told, tell: Callable[..., list[Event]]
) -> None:
    recipe = make_recipe("tensorboard")
    tell(recipe, BEGUN, *COURSE[:2])
    tell(recipe, Resumed("full", 1, 3, tuple(COURSE[:1])), BEGUN, *COURSE[1:], ENDED)
    assert told.steps == [1, 2, 3, 3]
    assert [place.identifier for place in told.places] == [None, "run-7"]
    assert told.files.count("recipe.yaml") == 1


def test_epochs_that_a_tracker_missed_are_told_when_the_run_goes_on(
    told: Told, tell: Callable[..., list[Event]]
) -> None:
    recipe = make_recipe("tensorboard")
    told.fails_at = 2
    tell(recipe, BEGUN, *COURSE[:2])
    told.fails_at = None
    tell(recipe, Resumed("full", 2, 0, tuple(COURSE[:2])), BEGUN, COURSE[2], ENDED)
    assert told.steps == [1, 2, 3, 3]


def test_one_that_fails_is_warned_of_once_and_the_others_are_told(
    told: Told, other: Told, tell: Callable[..., list[Event]]
) -> None:
    told.fails_at = 2
    heard = tell(make_recipe("tensorboard", "mlflow"), BEGUN, *COURSE, ENDED)
    assert [event.message for event in heard if isinstance(event, Warned)] == [
        "tensorboard is told no more of this run, which goes on: the server is gone"
    ]
    assert told.steps == [1]
    assert told.ends == ["ended"]
    assert other.steps == [1, 2, 3, 3]


def test_an_error_of_the_run_ends_the_trackers_run_and_is_not_swallowed(
    told: Told, tmp_path: Path
) -> None:
    def interrupt() -> None:
        with tracked(make_recipe("tensorboard"), tmp_path, tell=lambda event: None) as tell_all:
            (tmp_path / "recipe.yaml").touch()
            tell_all(BEGUN)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert told.ends == ["ended"]


def test_a_note_that_is_damaged_costs_the_tracker_and_not_the_run(
    told: Told, tell: Callable[..., list[Event]], tmp_path: Path
) -> None:
    (tmp_path / "run-001" / "tracking").mkdir()
    (tmp_path / "run-001" / "tracking" / "told.json").write_text("{")
    heard = tell(make_recipe("tensorboard"), BEGUN, *COURSE, ENDED)
    assert len([event for event in heard if isinstance(event, Warned)]) == 1
    assert told.figures == []
