"""How long commands take until they answer, and a run until its first batch, as whole processes.

    python tests/bench/startup.py --repeats 20 --out docs/benchmarks/startup.json
    FINETUNE_ASSETS=… python tests/bench/startup.py --before 85d8a87~1

Seconds of the wall, and of the processor, user and system time of all threads, which other work on
the machine changes least. Both are medians of processes that run in turn with those of an earlier
commit where `--before` names one, from a worktree of its own. The first round fills the caches and
is left out. With the assets folder a probe is run, too: to its first batch with nothing cached, and
to its end with features and timings cached by a run before.

Targets on a quiet machine: `--help` under 0.3 s, `run --help` under 0.45 s.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record
from process import Usage, run_watched

ROOT = Path(__file__).resolve().parents[2]
FIRST_BATCH = Path(__file__).with_name("first_batch.py")
WEIGHTS = "mobilenetv2_100.in1k"


@dataclass(frozen=True)
class Case:
    """A command line, and what it should take.

    Attributes:
        arguments: What follows the name of the command.
        title: What is said of it beside the command.
        target_seconds: On a quiet machine; None where there is none.
        program: What runs it: the command itself, or the file that ends at the first batch.
        repeats: Processes that are measured.
    """

    arguments: tuple[str, ...]
    title: str = ""
    target_seconds: float | None = None
    program: tuple[str, ...] = ("-m", "finetune")
    repeats: int = 0


def cases(given: argparse.Namespace) -> list[Case]:
    """List what is measured."""
    answers = {
        ("--version",): None,
        ("--help",): 0.3,
        ("run", "--help"): 0.45,
        ("backbones", "--json"): None,
        ("recipes", "ls"): None,
    }
    listed = [
        Case(arguments, target_seconds=target, repeats=given.repeats)
        for arguments, target in answers.items()
    ]
    assets = os.environ.get("FINETUNE_ASSETS")
    if not assets:
        return listed
    backbone = f"local-dir:{Path(assets, 'weights', WEIGHTS).resolve()}"
    data = str(Path(assets, "datasets", given.data).resolve())
    probe = ("run", "--recipe", "probe", "--backbone", backbone, "--data", data, "--quiet")
    batch = ", first batch, nothing cached"
    whole = ", whole, features and timings cached"
    return [
        *listed,
        Case(probe, batch, program=(str(FIRST_BATCH),), repeats=given.runs),
        Case(probe, whole, repeats=given.runs),
    ]


def measure(case: Case, versions: dict[str, Path]) -> dict[str, Any]:
    """Measure one command line in every version, in turn."""
    usages: dict[str, list[Usage]] = {name: [] for name in versions}
    with tempfile.TemporaryDirectory() as temporary:
        for round_index in range(case.repeats + 1):
            for name, root in versions.items():
                used = run_once(case, root, Path(temporary) / name)
                usages[name] += [used] if round_index else []
    now = [used.wall_seconds for used in usages["now"]]
    row: dict[str, Any] = {
        "command": " ".join(["finetune", *case.arguments[:3]]) + case.title,
        "median_seconds": round(statistics.median(now), 4),
        "min_seconds": min(now),
        "max_seconds": max(now),
        "processor_seconds": processor(usages["now"]),
        "target_seconds": case.target_seconds,
    }
    if "before" in usages:
        walls = [used.wall_seconds for used in usages["before"]]
        before = processor(usages["before"])
        row["before_median_seconds"] = round(statistics.median(walls), 4)
        row["before_processor_seconds"] = before
        row["processor_ratio"] = round(before / row["processor_seconds"], 2)
    return row


def run_once(case: Case, root: Path, work: Path) -> Usage:
    """Run one process of a version of the package."""
    is_cached = "-m" in case.program
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cache = work if is_cached else folder / "cache"
        out = ("--out", str(folder / "run")) if case.arguments[-1] == "--quiet" else ()
        return run_watched(
            [sys.executable, *case.program, *case.arguments, *out],
            {**os.environ, "PYTHONPATH": str(root), "FINETUNE_CACHE": str(cache)},
            folder,
        )


def processor(usages: list[Usage]) -> float:
    """Give the median processor seconds."""
    return round(statistics.median(used.cpu_seconds for used in usages), 3)


@contextlib.contextmanager
def checked_out(commit: str | None) -> Iterator[dict[str, Path]]:
    """Give the folders of the versions by name; an earlier commit gets one for the time."""
    if commit is None:
        yield {"now": ROOT}
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
        try:
            yield {"now": ROOT, "before": folder}
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def report(given: argparse.Namespace) -> dict[str, Any]:
    """Measure every command line and describe the machine."""
    load = os.getloadavg()[0]
    with checked_out(given.before) as versions:
        rows = [measure(case, versions) for case in cases(given)]
    before = f" --before {given.before}" if given.before else ""
    return {
        "title": "Start-up of the command line",
        "commit": record.commit(),
        "device": record.device(),
        "command": f"python tests/bench/startup.py --repeats {given.repeats} --runs {given.runs}"
        f"{before}",
        "notes": [
            f"load average {load:.1f} at the start: processor seconds, user and system time of all "
            "threads, say more than seconds of the wall",
            f"a run is of {given.data}, with {WEIGHTS}",
            *([f"before: commit {given.before}, in turn"] if given.before else []),
        ],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": record.versions("torch", "torchvision", "timm", "scikit-learn"),
        "rows": rows,
    }


def main() -> int:
    """Measure, write JSON, and fail where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20, help="processes that only answer")
    parser.add_argument("--runs", type=int, default=5, help="processes that run")
    parser.add_argument("--data", default="textures", help="a set of the assets folder")
    parser.add_argument("--before", help="a commit to compare with")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    document = report(given)
    text = json.dumps(document, indent=1) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    print(text, end="")
    missed = [
        row
        for row in document["rows"]
        if row["target_seconds"] and row["median_seconds"] > row["target_seconds"]
    ]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
