"""Seconds, memory and accuracy of `finetune` beside its peers and the floor, in turn, in one run.

    FINETUNE_ASSETS=… python tests/bench/speed.py --out docs/benchmarks/speed.json

Each round does every job of every set once by every contender, in an order that begins with
another one each round; a round has its own seed. What the file has already is not measured again,
so that a measurement of hours can be taken up where it ended. `--quick` tries everything on a few
photos; its figures mean nothing. The peers need `make peers`.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contenders
import jobs
import record
import summary
from contenders import Places, Task
from default import flowers_600
from process import Failed, run_watched

ROOT = Path(__file__).resolve().parents[2]
SETS = ("textures", "trash", "flowers-600")
PREDICTED = "flowers"  # all 3,119 photos, by models of flowers-600
QUICK = {"classes": 4, "train": 8, "val": 6}


def main() -> int:
    """Measure what the file lacks, and write it after each run."""
    given = _parse()
    found: dict[str, Any] = {"rows": [], "versions": {}}
    if given.out and given.out.is_file():
        found = json.loads(given.out.read_text())
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        places = Places(given.assets / "weights" / given.backbone, work, given.peers_python)
        failed = measure_all(given, places, found)
    for line in _shown(summary.summarise(found["rows"])):
        print(line)
    for message in failed:
        print(message, file=sys.stderr)
    return 1 if failed else 0


def _parse() -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="the file of figures; none where absent")
    parser.add_argument("--backbone", default="mobilenetv2_100.in1k")
    parser.add_argument("--jobs", nargs="+", choices=tuple(jobs.JOBS), default=list(jobs.JOBS))
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seeds", nargs="+", type=int, help="of the rounds; 0, 1, 2 … where absent"
    )
    parser.add_argument("--contenders", nargs="+", default=list(contenders.CONTENDERS))
    parser.add_argument("--quick", action="store_true", help="a few photos, one epoch a phase")
    parser.add_argument(
        "--peers-python", type=Path, default=ROOT / ".venv-peers/bin/python", metavar="PYTHON"
    )
    given = parser.parse_args()
    given.assets = Path(os.environ["FINETUNE_ASSETS"]).resolve()
    given.seeds = given.seeds or list(range(given.rounds))
    return given


def measure_all(given: argparse.Namespace, places: Places, found: dict[str, Any]) -> list[str]:
    """Add the rows that are lacking; give what failed."""
    rows = found["rows"]
    known = {(r["data"], r["job"], r["contender"], r["round"], r["seed"]) for r in rows}
    failed = []
    for data, job, contender, number in turns(given):
        seed = given.seeds[number % len(given.seeds)]
        if (data, job, contender, number, seed) in known:
            continue
        print(f"round {number}: {data}, {job}, {contender}, seed {seed}", file=sys.stderr)
        source = source_of(data, given, places)
        folder = contenders.empty(places.work / "run")
        epochs = 1 if given.quick else None
        task = Task(contender, job, data, source, folder, seed, epochs)
        try:
            row = measure(task, given, places)
        except Failed as error:
            failed.append(f"{data}, {job}, {contender}: {error}")
            continue
        found["versions"][contender] = row.pop("versions")
        rows.append({"data": data, "job": job, "contender": contender, "round": number, **row})
        print(json.dumps(rows[-1]), flush=True)
        if given.out:
            given.out.write_text(json.dumps(document(found, given), indent=1) + "\n")
    return failed


def turns(given: argparse.Namespace) -> Iterator[tuple[str, str, str, int]]:
    """Give set, job, contender and round in the order of the measurement."""
    for number in range(given.rounds):
        shift = number % len(given.contenders)
        order = given.contenders[shift:] + given.contenders[:shift]
        for job in given.jobs:
            for data in [PREDICTED] if job == "predict" else given.sets:
                for contender in filter(lambda name: contenders.takes_part(name, job), order):
                    yield data, job, contender, number


def measure(task: Task, given: argparse.Namespace, places: Places) -> dict[str, Any]:
    """Do one task as a whole process, and give its row without its name."""
    environment = {**os.environ, "FINETUNE_CACHE": str(places.work / "cache")}
    contenders.empty(places.work / "cache")
    if contenders.kind_of(task.contender) == "floor":  # waits as the command line of finetune does
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if task.job == "predict":
        make_model(task.contender, given, places, environment)
    if task.contender == "finetune-again":  # another recipe on the same data came before it
        first = contenders.empty(places.work / "first")
        earlier = Task("finetune", "head", task.data, task.source, first)
        run_watched(contenders.command_of(earlier, places), environment, first)
    command = contenders.command_of(task, places)
    load = os.getloadavg()[0]
    usage = run_watched(command, environment, task.folder)
    figures = contenders.figures_of(task, places, usage.output)
    return {
        "seed": task.seed,
        "kind": contenders.kind_of(task.contender),
        "wall_seconds": usage.wall_seconds,
        "cpu_seconds": usage.cpu_seconds,
        "peak_memory_mib": usage.peak_memory_mib,
        **figures,
        "num_photos": len(jobs.list_photos(task.source)),
        "load_average": round(load, 2),
        "commit": record.commit(),
        "instructions": record.instructions(),
    }


def make_model(
    contender: str, given: argparse.Namespace, places: Places, environment: dict[str, str]
) -> None:
    """Train, unmeasured, the model that a contender predicts with, where there is none yet."""
    target = contenders.model_of(contender, places)
    if target.exists():
        return
    folder = contenders.empty(places.work / "model-run")
    target.parent.mkdir(exist_ok=True)
    source = source_of("flowers-600", given, places)
    task = Task(target.name, "head", "flowers-600", source, folder, max_epochs=1, save=target)
    run_watched(contenders.command_of(task, places), environment, folder)


def source_of(data: str, given: argparse.Namespace, places: Places) -> Path:
    """Give the folder of a set; a small copy for `--quick`."""
    folder = places.work / "data" / data
    whole = given.assets / "datasets" / data
    if given.quick:
        if not folder.exists():
            few_photos(given.assets / "datasets" / data.removesuffix("-600"), folder)
        return folder
    if data != "flowers-600":
        return whole
    if not folder.exists():
        flowers_600(given.assets, folder)
    return folder


def few_photos(source: Path, folder: Path) -> None:
    """Copy a few photos of a few classes."""
    for part in ("train", "val"):
        for place in sorted((source / part).iterdir())[: QUICK["classes"]]:
            (folder / part / place.name).mkdir(parents=True)
            for photo in sorted(place.iterdir())[: QUICK[part]]:
                shutil.copyfile(photo, folder / part / place.name / photo.name)


def document(found: dict[str, Any], given: argparse.Namespace) -> dict[str, Any]:
    """Say what was measured on what; the summary is what the page shows."""
    return {
        "title": "Speed beside four peers and the floor",
        "command": "python tests/bench/speed.py --out docs/benchmarks/speed.json",
        "commit": record.commit(),
        "device": record.device(),
        "backbone": given.backbone,
        "python": platform.python_version(),
        "versions": found["versions"],
        "summary": summary.summarise(found["rows"]),
        "rows": found["rows"],
    }


def _shown(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Show the summary on a terminal."""
    names = ("data", "job", "contender", "rounds", "wall_seconds", "loop_seconds", "loop_factor")
    names += ("wall_factor", "loop_of_floor", "peak_memory_mib", "accuracy", "drift")
    yield "\t".join(names)
    for row in rows:
        yield "\t".join("" if row[name] is None else str(row[name]) for name in names)


if __name__ == "__main__":
    sys.exit(main())
