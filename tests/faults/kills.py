"""Kill real runs at random moments, resume them, and compare with a run that nobody touched.

    python tests/faults/kills.py --kills 50 --out docs/benchmarks/kills.json

A run has a probe, a stage from stored activations and a stage of the whole network, and writes
checkpoints as often as it can. The kills come in turn at a random moment of each stage, of the
evaluation after the last, of the whole run, and while a checkpoint of a stage is being written.
SIGKILL goes to the run and its workers at once. A run survives if, resumed, it ends with the same
weights, history and predictions, bit for bit.
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
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import record

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
# (stage, whether a checkpoint of it is being written); a run is of all that it does.
TURNS = (
    *(("head", False), ("last", False), ("full", False), ("evaluation", False), ("run", False)),
    *(("last", True), ("full", True)),
)
MOST_ATTEMPTS = 6  # a kill; a run may be over before its moment comes
Process: TypeAlias = "subprocess.Popen[bytes]"
FINETUNE = (sys.executable, "-m", "finetune")


@dataclass(frozen=True)
class Outcome:
    """What came of one kill.

    Attributes:
        when: `moment` or `checkpoint`.
        stage: The stage that was under way; empty before the first, `evaluation` after the last.
        had_checkpoint: Whether there was one to go on from.
        is_same: Whether the resumed run ended as the one that nobody touched.
    """

    when: str
    stage: str
    had_checkpoint: bool
    is_same: bool


@dataclass(frozen=True)
class Moment:
    """When a run is killed.

    Attributes:
        place: A stage, `evaluation`, or `run`, which begins with the process.
        is_writing: Whether a checkpoint is to be under way.
        after: Seconds from the beginning of the place, at least.
    """

    place: str
    is_writing: bool
    after: float


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
        "commit": record.commit(),
        "device": record.device(),
        "notes": [
            "survived: the resumed run ended with the weights, history and predictions of one that "
            "nobody touched, bit for bit; from_a_checkpoint: it had one, else it began anew"
        ],
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
    spans = {"run": seconds, **spans_of(work / "whole")}
    outcomes: list[Outcome] = []
    for attempt in range(MOST_ATTEMPTS * kills):
        if len(outcomes) == kills:
            break
        place, is_writing = TURNS[len(outcomes) % len(TURNS)]
        moment = Moment(place, is_writing, draw.random() * spans[place])
        outcome = kill_once(work, f"run-{attempt}", moment)
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


def kill_once(work: Path, name: str, moment: Moment) -> Outcome | None:
    """Kill a run and resume it; None where it was over before."""
    run = work / name
    process = start(work, run)
    is_running = wait_for(lambda: moment.place == "run" or moment.place in places(run), process)
    deadline = time.perf_counter() + moment.after

    def is_time() -> bool:
        # While a checkpoint is written it has a hidden name.
        is_written = not moment.is_writing or any(run.glob("checkpoints/.*"))
        return time.perf_counter() >= deadline and is_written

    is_running = is_running and wait_for(is_time, process)
    if is_running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if not is_running:
        return None
    stage = ["", *places(run)][-1]
    had_checkpoint = any(run.glob("checkpoints/[0-9]*"))
    finish(work, run, "--resume")
    when = "checkpoint" if moment.is_writing else "moment"
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


def places(run: Path) -> list[str]:
    """Name the stages that have begun, and the evaluation once the last has ended."""
    return list(begun(run))


def spans_of(run: Path) -> dict[str, float]:
    """Give what each stage of a whole run took, and the evaluation after them, in seconds."""
    times = begun(run)
    ends = [*list(times.values())[1:], datetime.fromisoformat(events_of(run)[-1]["time"])]
    return {
        place: (end - start).total_seconds()
        for (place, start), end in zip(times.items(), ends, strict=True)
    }


def begun(run: Path) -> dict[str, datetime]:
    """Say when each stage began, and when the last one ended."""
    times, num_ended = {}, 0
    for row in events_of(run):
        moment = datetime.fromisoformat(row["time"])
        num_ended += row["event"] == "StageEnded"
        if row["event"] == "StageStarted":
            times[row["stage"]] = moment
        elif row["event"] == "StageEnded" and num_ended == RECIPE.count("- {name:"):
            times["evaluation"] = moment
    return times


def events_of(run: Path) -> list[dict[str, Any]]:
    """Read the events of a run that are written whole."""
    events = run / "events.jsonl"
    lines = events.read_text().splitlines() if events.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


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
