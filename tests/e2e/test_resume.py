"""A run that ended early goes on, and ends as the one that was never interrupted."""

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune.errors import DataError, RecipeError
from finetune.pipeline import Run, run
from finetune.recipe.schema import Recipe
from finetune.train.events import Event, Progressed, Resumed, Warned
from tests.conftest import write_colours

pytestmark = pytest.mark.slow  # each test trains twice or more

Make = Callable[..., Recipe]
STAGES = (
    {"name": "head", "train": "head", "solver": "probe"},
    {"name": "last", "train": {"last": 1}, "epochs": 2, "lr": 1e-3, "views": 2},
    {"name": "full", "train": "all", "epochs": 2, "lr": 1e-3},
)


class Ended(BaseException):
    """Ends a run as nothing in it expects."""


@pytest.fixture
def make(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a recipe of three stages whose checkpoints are written as often as can be."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))

    def recipe(backbone: str = "test_resnet", **values: Any) -> Recipe:
        given: dict[str, Any] = {
            "model": {"backbone": backbone, "pretrained": False, "drop_path_rate": 0.1},
            "data": {"path": str(tiny_folder)},
            "stages": STAGES,
            "training": {"batch_size": 8, "clip_norm": 1.0},
            "runtime": {"precision": "fp32", "device": "cpu", "workers": 0, "checkpoint_share": 1},
        }
        return Recipe(**{**given, **values})

    return recipe


def ending(recipe: Recipe, out: Path, *, after: int, resume: bool = False) -> bool:
    """Run until so many batches were reported, then end it; tell whether it came to that."""
    left = after

    def end(event: Event) -> None:
        nonlocal left
        left -= isinstance(event, Progressed) and event.what in ("train", "val")
        if left < 0:
            raise Ended

    try:
        run(recipe, out=out, resume=resume, on_event=end)
    except Ended:
        return True
    return False


def assert_same(one: Run, other: Run) -> None:
    """Compare weights and figures bit by bit, and the history but for its times."""
    ours, theirs = (load_file(run.folder / "model" / "model.safetensors") for run in (one, other))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert history(one) == history(other)
    predictions = [(run.folder / "predictions.csv").read_bytes() for run in (one, other)]
    assert predictions[0] == predictions[1]


def history(run: Run) -> list[dict[str, str]]:
    """Give the rows of `history.csv` without what a clock says."""
    with (run.folder / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        del row["images_per_second"], row["seconds"]
    return rows


@pytest.mark.parametrize("after", [2, 7, 12, 14])
def test_a_run_that_ended_goes_on_to_the_same_end(make: Make, tmp_path: Path, after: int) -> None:
    whole = run(make(), out=tmp_path / "whole")
    assert ending(make(), tmp_path / "run", after=after)
    told: list[Any] = []
    resumed = run(make(), out=tmp_path / "run", resume=True, on_event=told.append)
    assert any(isinstance(event, Resumed) for event in told)
    assert_same(resumed, whole)
    assert not (resumed.folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("stage", "training"),
    [
        (STAGES[2], {"batch_size": 8, "ema": 0.9, "mixup": 0.2}),
        (STAGES[2], {"batch_size": 4, "accumulate": 3, "sampler": "balanced"}),
        (STAGES[1], {"batch_size": 8, "manifold_mixup": 0.4}),
    ],
)
def test_all_that_a_step_depends_on_goes_on(
    make: Make, tmp_path: Path, stage: dict[str, Any], training: dict[str, Any]
) -> None:
    recipe = make(training=training, stages=(stage,))
    whole = run(recipe, out=tmp_path / "whole")
    assert ending(recipe, tmp_path / "run", after=5)
    assert_same(run(recipe, out=tmp_path / "run", resume=True), whole)


def test_a_run_that_ends_again_and_again_comes_to_the_same_end(make: Make, tmp_path: Path) -> None:
    whole = run(make(), out=tmp_path / "whole")
    times = 0
    while ending(make(), tmp_path / "run", after=4, resume=True):
        times += 1
    assert times >= 3
    resumed = run(make(), out=tmp_path / "run", overwrite=True)
    assert_same(resumed, whole)


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_is_used(
    make: Make, tmp_path: Path
) -> None:
    whole = run(make(), out=tmp_path / "whole")
    assert ending(make(), tmp_path / "run", after=12)
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    told: list[Any] = []
    resumed = run(make(), out=tmp_path / "run", resume=True, on_event=told.append)
    warnings = [event.message for event in told if isinstance(event, Warned)]
    assert f"{newest} is damaged; the checkpoint before it is used" in warnings
    assert_same(resumed, whole)


def test_another_recipe_is_refused_by_value(make: Make, tmp_path: Path) -> None:
    assert ending(make(), tmp_path / "run", after=7)
    other = make(training={"batch_size": 4, "clip_norm": 1.0})
    with pytest.raises(RecipeError) as caught:
        run(other, out=tmp_path / "run", resume=True)
    assert "training.batch_size: is 4, but the run began with 8" in str(caught.value)


def test_other_photos_are_refused(make: Make, tmp_path: Path) -> None:
    write_colours(tmp_path / "photos")
    recipe = make(data={"path": str(tmp_path / "photos")})
    assert ending(recipe, tmp_path / "run", after=7)
    photo = sorted((tmp_path / "photos").rglob("*.png"))[0]
    photo.rename(photo.with_name("renamed.png"))
    with pytest.raises(DataError, match="the photos are not those that"):
        run(recipe, out=tmp_path / "run", resume=True)


def test_nothing_to_go_on_from_begins_afresh(make: Make, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    told: list[Any] = []
    run(make(stages=STAGES[:1]), out=tmp_path / "run", resume=True, on_event=told.append)
    warnings = [event.message for event in told if isinstance(event, Warned)]
    assert f"{tmp_path}/run holds no checkpoint that is whole: the run begins afresh" in warnings
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_checkpoints_that_are_all_damaged_begin_afresh_whatever_is_asked_for(
    make: Make, tmp_path: Path
) -> None:
    assert ending(make(), tmp_path / "run", after=7)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"junk")
    other = make(stages=STAGES[:1], training={"batch_size": 4})
    told: list[Any] = []
    run(other, out=tmp_path / "run", resume=True, on_event=told.append)
    warnings = [event.message for event in told if isinstance(event, Warned)]
    assert f"{tmp_path}/run holds no checkpoint that is whole: the run begins afresh" in warnings


def test_an_interruption_waits_for_the_step_and_saves_it(make: Make, tmp_path: Path) -> None:
    recipe = make(stages=(STAGES[2],), runtime={**dict(make().runtime), "checkpoint_share": 1e-9})
    seen = 0

    def interrupt(event: Event) -> None:
        nonlocal seen
        seen += isinstance(event, Progressed) and event.what == "train"
        if seen == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run(recipe, out=tmp_path / "run", on_event=interrupt)
    told: list[Any] = []
    resumed = run(recipe, out=tmp_path / "run", resume=True, on_event=told.append)
    (at,) = [event for event in told if isinstance(event, Resumed)]
    assert (at.stage, at.epoch, at.num_batches) == ("full", 1, 2)
    assert_same(resumed, run(recipe, out=tmp_path / "whole"))


@pytest.mark.parametrize("has_room_at_first", [True, False])
def test_frozen_layers_are_computed_once_or_not_as_before_whatever_room_there_is(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_room_at_first: bool
) -> None:
    def set_room(has_room: bool) -> None:
        for name in ("free_disk", "free_memory"):
            monkeypatch.setattr(
                f"finetune.train.once.{name}", lambda *_: 100 << 30 if has_room else 0
            )
        monkeypatch.setattr("finetune.train.once.num_bytes_stored", lambda key, shapes: 0)

    recipe = make(stages=STAGES[:2])
    set_room(has_room_at_first)
    whole = run(recipe, out=tmp_path / "whole")
    assert ending(recipe, tmp_path / "cut", after=4)
    set_room(not has_room_at_first)
    assert_same(run(recipe, out=tmp_path / "cut", resume=True), whole)


def test_a_run_goes_on_with_other_workers_and_more_room_for_checkpoints(
    make: Make, tmp_path: Path
) -> None:
    recipe = make(stages=STAGES[:1] + STAGES[2:])
    whole = run(recipe, out=tmp_path / "whole")
    assert ending(recipe, tmp_path / "cut", after=4)
    runtime = {**recipe.runtime.model_dump(), "workers": 1, "checkpoint_gib": 3}
    done = run(make(stages=recipe.stages, runtime=runtime), out=tmp_path / "cut", resume=True)
    assert_same(done, whole)
    assert done.seconds >= sum(
        json.loads((done.folder / "metrics.json").read_text())["seconds"]["stages"].values()
    )
