"""Who takes part in the speed measurement: how each is started, and where its figures are read.

Peers and floor print a line of JSON. `finetune` is run by its command line, as a person runs it,
and its figures come from the files of its run folder.
"""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jobs

__all__ = ["CONTENDERS", "Places", "Task", "command_of", "figures_of", "kind_of", "takes_part"]

HERE = Path(__file__).resolve().parent
PEERS: dict[str, tuple[str, ...]] = {
    "plain": ("plain.py",),
    "fastai": ("fastai_peer.py",),
    "hf": ("hf_trainer.py",),
    "lightning": ("lightning_peer.py",),
    "fastai-frozen-bn": ("fastai_peer.py", "--frozen-bn"),
    "fastai-own-head": ("fastai_peer.py", "--own-head"),
    "lightning-frozen-bn": ("lightning_peer.py", "--frozen-bn"),
}
FLOORS: dict[str, tuple[str, ...]] = {
    "floor": ("--precision", "fp32"),
    "floor-bf16": ("--precision", "bf16"),
    "floor-kept": ("--precision", "fp32", "--keep"),
    "floor-kept-bf16": ("--precision", "bf16", "--keep"),
}
# The default: the rest is asked for by name, `finetune:NAME` for the recipe JOB-NAME.yaml.
CONTENDERS = ("plain", "fastai", "hf", "lightning", "floor", "floor-bf16", "finetune")


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are.

    Attributes:
        weights: Folder of the pretrained backbone.
        work: Folder for all that is made on the way.
        peers_python: Interpreter of the peers' environment.
    """

    weights: Path
    work: Path
    peers_python: Path


@dataclass(frozen=True, slots=True)
class Task:
    """One run of one contender.

    Attributes:
        contender: Its name.
        job: Its job.
        data: Name of the set.
        source: Folder with train/ and val/; of photos for `predict`.
        folder: Empty folder for what it leaves.
        seed: Its seed.
        max_epochs: Shortens every phase where given.
        save: Where a peer saves its model where given.
    """

    contender: str
    job: str
    data: str
    source: Path
    folder: Path
    seed: int = 0
    max_epochs: int | None = None
    save: Path | None = None


def kind_of(contender: str) -> str:
    """Say whether a contender is a `peer`, a `floor`, or `finetune`."""
    if contender in PEERS:
        return "peer"
    return "floor" if contender in FLOORS else "finetune"


def takes_part(contender: str, job: str) -> bool:
    """Tell whether a contender has something of its own to do in a job."""
    if contender.endswith("-frozen-bn"):
        return job in ("head", "full")
    if contender.startswith("floor-kept"):
        return job in ("full", "all")
    if kind_of(contender) == "finetune" and job != "predict":
        return recipe_of(contender, job).is_file()
    return (contender != "finetune-again" and ":" not in contender) or job != "predict"


def recipe_of(contender: str, job: str) -> Path:
    """Name the recipe that `finetune` follows in a job."""
    _, _, variant = contender.partition(":")
    return HERE / "recipes" / f"{job}{'-' * bool(variant)}{variant}.yaml"


def model_of(contender: str, places: Places) -> Path:
    """Name the model that a contender predicts with; the floor takes that of `finetune`."""
    name = contender if kind_of(contender) == "peer" else "finetune"
    return places.work / "models" / name


def command_of(task: Task, places: Places) -> list[str]:
    """Give the command that does a task."""
    kind = kind_of(task.contender)
    if kind == "finetune":
        return _finetune_command(task, places)
    options = ["--job", task.job, "--data", task.source, "--weights", places.weights]
    options += ["--seed", task.seed]
    if task.max_epochs:
        options += ["--max-epochs", task.max_epochs]
    model = model_of(task.contender, places)
    if task.job == "predict":
        options += ["--model", model / "model" if kind == "floor" else model]
    if kind == "floor":
        start: list[Any] = [sys.executable, HERE / "floor.py", *FLOORS[task.contender]]
        return [str(word) for word in [*start, *options]]
    script, *flags = PEERS[task.contender]
    options += ["--work", task.folder, *flags]
    if task.save:
        options += ["--save", task.save]
    return [str(word) for word in [places.peers_python, HERE / "peers" / script, *options]]


def _finetune_command(task: Task, places: Places) -> list[str]:
    """Give the command line of `finetune`."""
    start = [sys.executable, "-m", "finetune"]
    if task.job == "predict":
        answers = task.folder / "answers.csv"
        model = model_of(task.contender, places)
        return [*start, "predict", str(model), str(task.source), "--out", str(answers)]
    recipe = recipe_of(task.contender, task.job)
    words = ["run", "--quiet", "--recipe", recipe, "--data", task.source, "--seed", task.seed]
    words += ["--out", task.save or task.folder / "run"]
    words += ["--backbone", f"local-dir:{places.weights}"]
    for number, line in enumerate(_stages(recipe)):
        if task.max_epochs and "solver: probe" not in line:
            words += ["--set", f"stages.{number}.epochs={task.max_epochs}"]
    return [*start, *map(str, words)]


def _stages(recipe: Path) -> list[str]:
    """List the lines of a recipe that are stages; each of ours is one line."""
    return [line for line in recipe.read_text().splitlines() if line.startswith("  - {")]


def figures_of(task: Task, places: Places, output: str) -> dict[str, Any]:
    """Read the figures that a contender has left or printed."""
    if kind_of(task.contender) != "finetune":
        lines = [line for line in output.splitlines() if line.startswith('{"loop_seconds"')]
        figures: dict[str, Any] = json.loads(lines[-1])
    elif task.job == "predict":
        figures = _figures_of_answers(task.folder / "answers.csv")
    else:
        figures = figures_of_run(task.folder / "run", places.weights, task.job)
    names = ("loop_seconds", "best_accuracy", "last_accuracy", "drift", "trained_parameters")
    return {name: figures[name] for name in names} | {"versions": figures.get("versions", {})}


def _figures_of_answers(path: Path) -> dict[str, Any]:
    """Read how many photos were predicted right; a prediction's loop has no seconds of its own."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    right = sum(Path(row["path"]).parent.name == row["predicted"] for row in rows)
    accuracy = right / len(rows)
    found = {"best_accuracy": accuracy, "last_accuracy": accuracy}
    return {"loop_seconds": None, "drift": None, "trained_parameters": 0, **found}


def figures_of_run(run: Path, weights: Path, job: str) -> dict[str, Any]:
    """Read a run folder: the seconds of its stages, its accuracies, its drift."""
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "history.csv").open(encoding="utf-8", newline="") as stream:
        history = list(csv.DictReader(stream))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    audits = [event["audit"] for event in events if event["event"] == "StageStarted"]
    ends_with_all = jobs.JOBS[job][-1][0] == "all"
    return {
        "loop_seconds": round(sum(metrics["seconds"]["stages"].values()), 4),
        "best_accuracy": metrics["splits"]["val"]["accuracy"],
        "last_accuracy": float(history[-1]["val_accuracy"]),
        "drift": None if ends_with_all else drift_of(run / "model", weights, job),
        "trained_parameters": sum(row["num_trained"] for row in audits[-1]),
        "versions": json.loads((run / "environment.json").read_text())["versions"],
    }


def drift_of(model: Path, weights: Path, job: str) -> float:
    """Compare the statistics of frozen blocks with the pretrained ones, as the peers do."""
    from safetensors.numpy import load_file

    before, after = (load_file(folder / "model.safetensors") for folder in (weights, model))
    names = [name for name in after if name.endswith(("running_mean", "running_var"))]
    return max(_changes(before, after, jobs.frozen_names(names, job)))


def _changes(before: Any, after: Any, names: list[str]) -> Iterator[float]:
    """Give the relative change of each array, by norm."""
    for name in names:
        yield float(
            ((after[name] - before[name]) ** 2).sum() ** 0.5 / (before[name] ** 2).sum() ** 0.5
        )


def empty(folder: Path) -> Path:
    """Make a folder anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
