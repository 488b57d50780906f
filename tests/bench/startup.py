"""How long the command line takes until it answers, as whole processes.

    python tests/bench/startup.py --repeats 20 --out docs/benchmarks/startup.json

Targets on a quiet machine: `--help` under 0.3 s, `run --help` under 0.45 s.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import record

TARGETS_SECONDS = {
    ("--version",): None,
    ("--help",): 0.3,
    ("run", "--help"): 0.45,
    ("backbones", "--json"): None,
    ("recipes", "ls"): None,
}


def measure(arguments: tuple[str, ...], repeats: int) -> list[float]:
    """Time whole processes, in seconds; the first fills the caches and is left out."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "finetune", *arguments], stdout=subprocess.DEVNULL, check=True
        )
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


def report(repeats: int) -> dict[str, object]:
    """Measure every command line and describe the machine."""
    rows = []
    for arguments, target in TARGETS_SECONDS.items():
        seconds = measure(arguments, repeats)
        rows.append(
            {
                "command": " ".join(["finetune", *arguments]),
                "median_seconds": round(statistics.median(seconds), 4),
                "min_seconds": round(min(seconds), 4),
                "max_seconds": round(max(seconds), 4),
                "target_seconds": target,
            }
        )
    return {
        "title": "Start-up of the command line",
        "commit": record.commit(),
        "device": record.device(),
        "command": f"python tests/bench/startup.py --repeats {repeats}",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "repeats": repeats,
        "rows": rows,
    }


def main() -> int:
    """Measure, write JSON, and fail where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    document = report(arguments.repeats)
    text = json.dumps(document, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")
    print(text, end="")
    missed = [
        row
        for row in document["rows"]
        if row["target_seconds"] and row["median_seconds"] > row["target_seconds"]
    ]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
