"""Kill real runs at random moments, resume them, and compare with a run that nobody touched.

    python tests/faults/kills.py --kills 50 --out docs/benchmarks/faults.json

A run has a probe, a stage from stored activations and a stage of the whole network, and writes
checkpoints as often as it can. Half of the kills come at a random moment of the run, half while a
checkpoint is being written. SIGKILL goes to the run and its workers at once. A run survives if,
resumed, it ends with the same weights, history and predictions, bit for bit.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

RECIPE = """\
schema_version: 1
name: faults
model: {backbone: test_resnet, pretrained: false, drop_path_rate: 0.1}
augment: {kind: light}
training: {batch_size: 8, clip_norm: 1.0, ema: 0.9}
stages:
  - {name: head, train: head, solver: probe}
  - {name: last, train: {last: 1}, epochs: 3, lr: 1e-3, views: 2}
  - {name: full, train: all, epochs: 3, lr: 1e-3}
runtime: {device: cpu, precision: fp32, workers: 1, checkpoint_share: 1.0}
"""
COLOURS = {"blue": (40, 60, 200), "green": (40, 170, 60), "red": (200, 50, 40)}
PER_CLASS = 24
MOST_ATTEMPTS = 6  # a kill; a run may be over before its moment comes
Process: TypeAlias = "subprocess.Popen[bytes]"
FINETUNE = (sys.executable, "-m", "finetune")


@dataclass(frozen=True)
class Outcome:
    """What came of one kill.

    Attributes:
        when: `moment` or `checkpoint`.
        stage: The stage that was under way; empty before the first.
        had_checkpoint: Whether there was one to go on from.
        is_same: Whether the resumed run ended as the one that nobody touched.
    """

    when: str
    stage: str
    had_checkpoint: bool
    is_same: bool


def main() -> int:
    """Kill as often as asked, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        outcomes = kill_often(Path(temporary), given.kills, seed=given.seed)
    survived = sum(outcome.is_same for outcome in outcomes)
    document = {
        "title": "Runs that were killed",
        "command": f"python tests/faults/kills.py --kills {given.kills}",
        "tried": len(outcomes),
        "survived": survived,
        "rows": table(outcomes),
    }
    text = json.dumps(document, indent=1) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if survived == len(outcomes) == given.kills else 1


def kill_often(work: Path, kills: int, *, seed: int = 0) -> list[Outcome]:
    """Make a run whole, then kill and resume as many others."""
    seconds = make_whole(work)
    draw = random.Random(seed)
    outcomes: list[Outcome] = []
    for attempt in range(MOST_ATTEMPTS * kills):
        if len(outcomes) == kills:
            break
        when = "checkpoint" if len(outcomes) % 2 else "moment"
        outcome = kill_once(work, f"run-{attempt}", when, draw.random() * seconds)
        if outcome is not None:
            outcomes.append(outcome)
            print(outcome, file=sys.stderr, flush=True)
    return outcomes


def make_whole(work: Path) -> float:
    """Make the run that nobody touches; give what it took."""
    make_photos(work / "photos")
    (work / "recipe.yaml").write_text(RECIPE)
    started = time.perf_counter()
    finish(work, work / "whole")
    return time.perf_counter() - started


def kill_once(work: Path, name: str, when: str, after: float) -> Outcome | None:
    """Kill a run and resume it; None where it was over before."""
    run = work / name
    process = start(work, run)
    deadline = time.perf_counter() + after
    is_time = {
        "moment": lambda: time.perf_counter() >= deadline,
        # While one is written it has a hidden name; the moment is looked for from `after` on.
        "checkpoint": lambda: (
            time.perf_counter() >= deadline and any(run.glob("checkpoints/.*.safetensors"))
        ),
    }[when]
    is_running = wait_for(is_time, process)
    if is_running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if not is_running:
        return None
    stage = last_stage(run)
    had_checkpoint = any(run.glob("checkpoints/[0-9]*"))
    finish(work, run, "--resume")
    return Outcome(when, stage, had_checkpoint, is_same(run, work / "whole"))


def wait_for(is_time: Callable[[], bool], process: Process) -> bool:
    """Wait for a moment; False where the process has ended before it."""
    while not is_time():
        if process.poll() is not None:
            return False
        time.sleep(0.0001)  # to write a checkpoint takes some milliseconds
    return process.poll() is None


def start(work: Path, run: Path, *flags: str, launcher: Sequence[str] = FINETUNE) -> Process:
    """Start a run in a process group of its own."""
    command = [*launcher, "run", "--quiet", *flags]
    command += ["--recipe", str(work / "recipe.yaml"), "--data", str(work / "photos")]
    command += ["--out", str(run)]
    cache = work / "cache" / run.relative_to(work)
    environment = {**os.environ, "FINETUNE_CACHE": str(cache)}
    return subprocess.Popen(
        command,
        env=environment,
        start_new_session=True,
        # A shell lets what it runs in the background ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(work: Path, run: Path, *flags: str) -> None:
    """Run to the end."""
    process = start(work, run, *flags)
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {errors.decode()}")


def is_same(run: Path, other: Path) -> bool:
    """Whether two runs ended with the same weights, history and predictions."""
    names = ("model/model.safetensors", "predictions.csv", "split.csv")
    are_equal = all((run / name).read_bytes() == (other / name).read_bytes() for name in names)
    return are_equal and history(run) == history(other)


def history(run: Path) -> list[dict[str, str]]:
    """Read `history.csv` without what a clock says."""
    with (run / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        {name: value for name, value in row.items() if name not in ("images_per_second", "seconds")}
        for row in rows
    ]


def last_stage(run: Path) -> str:
    """Name the stage that was under way."""
    events = run / "events.jsonl"
    lines = events.read_text().splitlines() if events.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    stages = [row["stage"] for row in rows if row["event"] == "StageStarted"]
    return stages[-1] if stages else ""


def table(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """Count what was tried and what survived, by moment and stage."""
    kinds = sorted({(outcome.when, outcome.stage) for outcome in outcomes})
    return [
        {
            "when": when,
            "stage": stage or "before the first",
            "tried": len(those),
            "from_a_checkpoint": sum(outcome.had_checkpoint for outcome in those),
            "survived": sum(outcome.is_same for outcome in those),
        }
        for when, stage in kinds
        for those in [[o for o in outcomes if (o.when, o.stage) == (when, stage)]]
    ]


def make_photos(folder: Path) -> None:
    """Write photos of three classes told apart by their colour."""
    draw = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            noise = draw.integers(-40, 41, (48, 64, 3)) + np.array(colour)
            image = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            image.save(folder / name / f"{number}.png")


if __name__ == "__main__":
    sys.exit(main())
