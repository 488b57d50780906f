"""What the embedded example gives: the starter fine-tuned, and the same network from scratch.

    python tests/bench/demo.py --out docs/benchmarks/demo.json

It runs `finetune demo` as `make demo` does, as a whole process, in an empty folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {"tuned": "fine-tuned from the starter", "scratch": "the same from scratch"}


def main() -> int:
    """Run the example and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/demo.json")
    out = parser.parse_args().out
    load = os.getloadavg()[0]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "finetune", "demo", folder, "--json"]
        asked = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    recorded = document(json.loads(asked.stdout)["runs"], seconds, load)
    out.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    return 0


def document(runs: dict[str, dict[str, Any]], seconds: float, load: float) -> dict[str, Any]:
    """Say what was measured on what; the folders of the runs are gone."""
    return {
        "title": "The embedded example",
        "command": "make demo",
        "commit": record.commit(),
        "device": record.device(),
        "load_average_before": load,
        "total_seconds": round(seconds, 1),
        "rows": [
            {
                "network": NETWORKS[name],
                "num_samples": row["num_samples"],
                "accuracy": row["accuracy"],
                "accuracy_interval": row["accuracy_interval"],
                "macro_f1": row["macro_f1"],
                "seconds": round(row["seconds"], 1),
            }
            for name, row in runs.items()
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
