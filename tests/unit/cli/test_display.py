"""What a run looks like: events in, lines out."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune.cli.display import RunDisplay, show_result
from finetune.cli.render import Screen
from finetune.evaluate.evaluate import evaluate
from finetune.train.events import (
    AuditRow,
    DataFound,
    EpochEnded,
    Event,
    FrozenLayers,
    Progressed,
    RecipeResolved,
    RunEnded,
    RunStarted,
    StageEnded,
    StageStarted,
    Warned,
)
from finetune.types import LeftOut, Outputs

COUNTS = {"train": {"ants": 1200, "bees": 7}, "val": {"ants": 3, "bees": 2}}
EPOCH = EpochEnded("full", 2, 20, 0.5, 0.25, 0.9, 0.875, 1e-4, 45.2, 12.3, is_best=True)
STAGE = StageStarted(
    "full",
    "gradient",
    5,
    (
        AuditRow("stem", 0, 1000, 0.0, "frozen"),
        AuditRow("1", 0, 2000, 0.0, "frozen"),
        AuditRow("2", 3000, 0, 5e-5, "trained"),
        AuditRow("head", 20, 0, 1e-4, "none"),
    ),
)


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


def drawn(*events: Event) -> list[str]:
    """Draw events where there is no terminal."""
    stream = io.StringIO()
    display = RunDisplay(Screen(stream))
    for event in events:
        display(event)
    return stream.getvalue().splitlines()


def test_what_was_found_is_shown_by_class_and_split() -> None:
    assert drawn(DataFound(("ants", "bees"), COUNTS, ())) == [
        "1,212 images, 2 classes",
        "  class  train  val",
        "  ants   1,200    3",
        "  bees       7    2",
        "  all    1,207    5",
    ]


def test_what_was_left_out_is_named_with_its_reason() -> None:
    left_out = tuple(LeftOut(f"{n}.jpg", "truncated") for n in range(7))
    lines = drawn(DataFound(("ants", "bees"), COUNTS, left_out))
    assert lines[5:] == [
        "left out: 7",
        *(f"  {n}.jpg: truncated" for n in range(5)),
        "  and 2 more",
    ]


def test_many_classes_are_summed_up() -> None:
    classes = tuple(f"c{n:03d}" for n in range(100))
    counts = {"train": {name: n + 1 for n, name in enumerate(classes)}}
    assert drawn(DataFound(classes, counts, ())) == [
        "5,050 images, 100 classes",
        "  class              train",
        "  fewest in a class      1",
        "  median                50",
        "  most in a class      100",
        "  all                5,050",
    ]


def test_automatic_values_and_the_estimate_are_shown() -> None:
    reasons = {"stages.1.epochs": "12 (400 steps)"}
    assert drawn(RecipeResolved(reasons, 380.0)) == [
        "chosen automatically",
        "  stages.1.epochs: 12 (400 steps)",
        "estimated time: 6 min 20 s",
    ]


def test_a_stage_begins_with_what_learns_in_it() -> None:
    assert drawn(STAGE) == [
        "",
        "stage full: 5 epochs",
        "  3,020 of 6,020 parameters learn",
        "  depth      trained  frozen       lr  BatchNorm",
        "  stem to 1        -   3,000        -  frozen",
        "  2            3,000       -  5.0e-05  trained",
        "  head            20       -  1.0e-04  -",
    ]


def test_an_epoch_is_one_line() -> None:
    assert drawn(STAGE, EPOCH)[-1] == (
        "      2/5       0.500     0.250    0.900   0.875  1.0e-04     45         12 s  best"
    )


def test_an_epoch_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    title, line = drawn(STAGE, EPOCH)[-2:]
    assert title == "    epoch  val loss  val acc  val F1         time"
    assert line == "      2/5     0.250    0.900   0.875         12 s  best"


def test_what_becomes_of_frozen_layers_is_told() -> None:
    stored = FrozenLayers("last", True, "cut before blocks.6: 1 tensor of 8 KiB an image")
    plain = FrozenLayers("last", False, "mixup and CutMix mix images")
    assert drawn(stored, plain) == [
        "frozen layers are computed once: cut before blocks.6: 1 tensor of 8 KiB an image",
        "frozen layers are computed in every epoch: mixup and CutMix mix images",
    ]


def test_a_stage_ends_with_its_time_and_note() -> None:
    assert drawn(StageEnded("full", 61.0, "stopped early")) == [
        "stage full took 1 min 01 s; stopped early"
    ]


def test_progress_is_named_by_stage_and_epoch() -> None:
    stream, now = io.StringIO(), [0.0]
    display = RunDisplay(Screen(stream, clock=lambda: now[0]))
    for event in (STAGE, Progressed("train", 1, 99, 3.0)):
        display(event)
    now[0] = 20.0
    display(Progressed("train", 60, 99, 3.0))
    assert stream.getvalue().splitlines()[-1] == (
        "  full 1/5 training: 60 of 99 images  3.0 images/s, 13 s left"
    )


def test_quiet_draws_nothing_and_keeps_the_warnings() -> None:
    stream = io.StringIO()
    display = RunDisplay(Screen(stream), is_quiet=True)
    events: tuple[Event, ...] = (
        RunStarted("runs/x", "resnet18", "photos"),
        DataFound(("ants", "bees"), COUNTS, ()),
        Warned("few images"),
        STAGE,
        EPOCH,
        RunEnded("runs/x", "runs/x/model", "stage full, epoch 2", 9.0),
    )
    for event in events:
        display(event)
    assert stream.getvalue() == ""
    display.finish()
    assert stream.getvalue() == "warning: few images\n"


def outputs_of(num_classes: int) -> Outputs:
    """Two images of each class; the first class is always taken for the second."""
    labels = np.repeat(np.arange(num_classes), 2)
    predicted = np.where(labels == 0, 1, labels)
    probs = np.full((len(labels), num_classes), 0.1 / (num_classes - 1), dtype=np.float32)
    probs[np.arange(len(labels)), predicted] = 0.9
    classes = tuple(f"class {n:03d}" for n in range(num_classes))
    names = tuple(f"{n}.jpg" for n in range(len(labels)))
    return Outputs(names, labels.astype(np.int64), probs, classes)


def result_lines(num_classes: int, *, role: str = "") -> list[str]:
    """Show the figures of a split where there is no terminal."""
    stream = io.StringIO()
    result = evaluate(outputs_of(num_classes), split="test")
    show_result(Screen(stream), result, role=role, table=str(Path("runs/x/per_class.csv")))
    return stream.getvalue().splitlines()


def test_the_closing_table_has_every_class_with_its_interval() -> None:
    lines = result_lines(3)
    assert lines[0] == "test: 6 images"
    assert lines[1] == "  accuracy  0.667  (95 % interval 0.300 to 0.903)"
    assert lines[3].startswith("  ECE       0.233  (95 % interval ")
    assert lines[4:8] == [
        "  class      precision  recall  95 %             F1  images",
        "  class 000          -   0.000  0.00 to 0.66  0.000       2",
        "  class 001      0.500   1.000  0.34 to 1.00  0.667       2",
        "  class 002      1.000   1.000  0.34 to 1.00  1.000       2",
    ]


def test_of_many_classes_the_weakest_are_shown_and_where_the_rest_is() -> None:
    lines = result_lines(100)
    assert lines[5].split()[:2] == ["class", "000"]
    assert lines[-1] == ("  the weakest 20; 80 more classes have no lower F1: runs/x/per_class.csv")
    assert len(lines) == 26


def test_what_a_model_doubts_is_said() -> None:
    stream = io.StringIO()
    outputs = outputs_of(3)
    doubting = replace(
        outputs,
        logits=3 * np.log(outputs.probs),
        sets=outputs.probs > 0.04,
        rejected=np.array([True, True, False, False, False, False]),
        novelty=np.array([2, 0, 0, 0, 0, 0], np.float32),
    )
    show_result(Screen(stream), evaluate(doubting, split="test"), role="", table=None)
    lines = stream.getvalue().splitlines()
    assert lines[3].endswith(", 0.333 before")
    assert lines[4] == "  in set    1.000  (95 % interval 0.610 to 1.000), 3.00 classes a set"
    assert lines[5] == "  answered  1.000  (95 % interval 0.510 to 1.000) right, 2 withheld"
    assert lines[6] == "  unlike    1 (images unlike those of training; by chance 5 %)"


def test_figures_used_for_selection_say_so() -> None:
    assert result_lines(2, role=" (used for selection: no test)")[0] == (
        "test: 4 images (used for selection: no test)"
    )


def test_a_brief_display_leaves_out_audits_and_most_epochs() -> None:
    stream = io.StringIO()
    display = RunDisplay(Screen(stream), is_brief=True)
    display(StageStarted("full", "gradient", 25, STAGE.audit))
    for number in range(1, 26):
        display(replace(EPOCH, epoch=number))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "stage full: 25 epochs"
    assert [line.split()[0] for line in lines[1:]] == ["epoch", "1/25", "10/25", "20/25", "25/25"]
