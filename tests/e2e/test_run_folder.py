"""A run learns, keeps what is frozen as it was, and leaves a complete folder behind."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune.errors import TrainingError
from finetune.pipeline import Run, run
from finetune.recipe.load import load_recipe
from finetune.train.events import EpochEnded, Event, RunEnded, StageStarted

pytestmark = pytest.mark.slow  # each trains, once or more

HISTORY_COLUMNS = (
    *("stage", "epoch", "step", "train_loss", "val_loss", "val_accuracy", "val_macro_f1"),
    *("lr", "images_per_second", "seconds"),
)
MakeRun = Callable[..., tuple[Run, list[Event]]]


@pytest.fixture
def make_run(tiny_folder: Path, tmp_path: Path) -> MakeRun:
    def make(**values: object) -> tuple[Run, list[Event]]:
        events: list[Event] = []
        document = {
            "model": {"backbone": "test_resnet", "pretrained": False},
            "data": {"path": str(tiny_folder)},
            "augment": "light",
            "runtime": {"precision": "fp32", "device": "cpu"},
            **values,
        }
        return run(load_recipe(document), out=tmp_path / "run", on_event=events.append), events

    return make


PROBE = {"name": "head", "train": "head", "solver": "probe"}


def test_probe_learns_to_tell_colours_apart(make_run: MakeRun) -> None:
    done, _ = make_run(stages=[PROBE])
    assert done.results["test"].figures.accuracy == 1.0


def test_training_from_scratch_learns(make_run: MakeRun) -> None:
    done, _ = make_run(
        stages=[{"name": "full", "train": "all", "epochs": 15, "lr": 3e-3}],
        training={"batch_size": 8},
    )
    assert done.results["val"].figures.accuracy >= 0.8


def test_a_run_never_ends_worse_than_its_own_probe(make_run: MakeRun) -> None:
    wrecking = {"name": "full", "train": "all", "epochs": 1, "lr": 5.0, "optimizer": "sgd"}
    done, events = make_run(stages=[PROBE, wrecking], training={"clip_norm": 1.0})
    probe = next(event for event in events if isinstance(event, EpochEnded))
    assert done.results["val"].figures.macro_f1 >= probe.val_macro_f1
    ended = next(event for event in events if isinstance(event, RunEnded))
    assert ended.chosen == "stage head, epoch 1"


def test_head_stage_leaves_every_other_tensor_bit_identical(
    make_run: MakeRun, tmp_path: Path
) -> None:
    from finetune.model.backbone import create_backbone

    torch.manual_seed(0)
    start = create_backbone("test_resnet", pretrained=False).state_dict()
    save_file(
        {name: value.contiguous() for name, value in start.items()}, tmp_path / "w.safetensors"
    )
    done, _ = make_run(
        model={"backbone": "test_resnet", "weights": str(tmp_path / "w.safetensors")},
        stages=[{"name": "head", "train": "head", "epochs": 2, "lr": 1e-2}],
    )
    after = load_file(done.folder / "model" / "model.safetensors")
    assert after.keys() == start.keys()
    same = {name for name in start if torch.equal(start[name], after[name])}
    assert start.keys() - same == {"fc.weight", "fc.bias"}


def test_folder_holds_every_file_of_the_contract(make_run: MakeRun) -> None:
    done, _ = make_run(stages=[PROBE])
    found = {path.relative_to(done.folder).as_posix() for path in done.folder.rglob("*")}
    assert found == {
        "recipe.yaml",
        "split.csv",
        "history.csv",
        "events.jsonl",
        "metrics.json",
        "per_class.csv",
        "confusion_matrix.csv",
        "predictions.csv",
        "slices.csv",
        "environment.json",
        "model",
        "model/config.json",
        "model/model.safetensors",
        "model/finetune.json",
        "model/novelty.safetensors",
        "report.html",
        "plots",
        *(
            f"plots/{name}.{kind}"
            for name in ("class_f1", "calibration", "confusion_matrix")
            for kind in ("png", "svg")
        ),
    }


def test_history_has_the_columns_of_the_contract_and_a_row_an_epoch(make_run: MakeRun) -> None:
    done, _ = make_run(stages=[PROBE, {"name": "full", "train": "all", "epochs": 2}])
    with (done.folder / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == HISTORY_COLUMNS
    assert [(row["stage"], row["epoch"]) for row in rows] == [
        ("head", "1"),
        ("full", "1"),
        ("full", "2"),
    ]


def test_metrics_agree_with_predictions(make_run: MakeRun) -> None:
    done, _ = make_run(stages=[PROBE])
    metrics = json.loads((done.folder / "metrics.json").read_text())
    predictions = pd.read_csv(done.folder / "predictions.csv")
    for split in ("val", "test"):
        rows = predictions[predictions["split"] == split]
        assert metrics["splits"][split]["num_samples"] == len(rows) == 6
        assert metrics["splits"][split]["accuracy"] == rows["correct"].mean()
    assert metrics["selected_by"] == "val_macro_f1"
    assert metrics["probe"]["val_accuracy"] == metrics["splits"]["val"]["accuracy"]
    assert set(metrics["seconds"]["stages"]) == {"head"}


def test_every_event_is_a_line_of_the_log(make_run: MakeRun) -> None:
    done, events = make_run(stages=[PROBE])
    lines = (done.folder / "events.jsonl").read_text().splitlines()
    names = [json.loads(line)["event"] for line in lines]
    assert names == [type(e).__name__ for e in events if type(e).__name__ != "Progressed"]


def test_gradual_thaws_stage_by_stage(make_run: MakeRun, tiny_folder: Path) -> None:
    stages = [
        stage.model_dump(exclude_unset=True) | {"epochs": 1}
        for stage in load_recipe("gradual").stages
    ]
    _, events = make_run(stages=stages)
    trained = [
        [row.depth_name for row in event.audit if row.num_trained]
        for event in events
        if isinstance(event, StageStarted)
    ]
    assert trained == [["head"], ["3", "4", "head"], ["stem", "1", "2", "3", "4", "head"]]


@pytest.mark.parametrize(
    "training",
    [
        {"mixup": 0.4, "cutmix": 1.0},
        {"label_smoothing": 0.1, "class_weights": "balanced"},
        {"sampler": "balanced", "accumulate": 2, "batch_size": 5},
        {"ema": 0.9, "clip_norm": 0.5},
    ],
)
def test_regularisers_run_and_are_finite(make_run: MakeRun, training: dict[str, object]) -> None:
    done, events = make_run(
        stages=[{"name": "full", "train": "all", "epochs": 2, "lr": 1e-3}], training=training
    )
    losses = [event.train_loss for event in events if isinstance(event, EpochEnded)]
    assert len(losses) == 2
    assert all(loss < 100 for loss in losses)
    assert done.results["test"].figures.num_samples == 6


def test_early_stopping_ends_a_stage(make_run: MakeRun) -> None:
    stage = {"name": "full", "train": "head", "epochs": 30, "lr": 1e-9}
    stopping = {"metric": "val_log_loss", "patience": 2, "min_delta": 0.5}
    _, events = make_run(stages=[{**stage, "early_stopping": stopping}])
    assert sum(isinstance(event, EpochEnded) for event in events) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precision_of_training_is_kept_in_the_recipe(make_run: MakeRun, precision: str) -> None:
    done, _ = make_run(
        stages=[{"name": "full", "train": "all", "epochs": 1}],
        runtime={"precision": precision, "device": "cpu"},
    )
    assert f"precision: {precision}" in (done.folder / "recipe.yaml").read_text()


def test_last_batch_of_one_image_does_not_break_batch_norm(make_run: MakeRun) -> None:
    done, _ = make_run(
        stages=[{"name": "full", "train": "all", "epochs": 1}],
        training={"batch_size": 23},
    )
    assert len(done.index.part("train")) == 24
    assert done.results["test"].figures.num_samples == 6


def test_loss_that_leaves_the_numbers_stops_before_the_step(
    make_run: MakeRun, tmp_path: Path
) -> None:
    from finetune.model.backbone import create_backbone

    start = create_backbone("test_resnet", pretrained=False).state_dict()
    start["bn1.weight"].fill_(float("nan"))
    save_file(start, tmp_path / "w.safetensors")
    with pytest.raises(TrainingError) as caught:
        make_run(
            model={"backbone": "test_resnet", "weights": str(tmp_path / "w.safetensors")},
            stages=[{"name": "full", "train": "all", "epochs": 1}],
        )
    assert caught.value.message.startswith(
        "the loss is nan in stage 'full', epoch 1, step 1; training stopped before that step; "
        "its images: "
    )
    assert caught.value.hint == "lower the stage's lr, or give training.clip_norm: 1.0"
    assert caught.value.exit_code == 5


def test_weights_that_answer_nothing_finite_in_validation_are_named(
    make_run: MakeRun, tmp_path: Path
) -> None:
    from finetune.model.backbone import create_backbone

    start = create_backbone("test_resnet", pretrained=False).state_dict()
    start["bn1.running_var"].fill_(-1e6)  # plays no part in the steps of training
    save_file(start, tmp_path / "w.safetensors")
    with pytest.raises(TrainingError) as caught:
        make_run(
            model={"backbone": "test_resnet", "weights": str(tmp_path / "w.safetensors")},
            stages=[{"name": "full", "train": "all", "epochs": 2, "batch_norm": "trained"}],
        )
    assert "is not finite after stage 'full', epoch 1: its weights have diverged" in str(
        caught.value
    )
    assert caught.value.exit_code == 5
