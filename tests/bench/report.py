"""What a report costs: seconds, memory and size by the number of test photos.

    python tests/bench/report.py --out docs/benchmarks/report.json

The files of a run are written as a run writes them, with ten classes and photos of noise, which is
what a JPEG spends most bytes on. Each report is a process of its own; its first chart imports
matplotlib, as at the end of a run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))
from synthetic import Plan, write_run  # noqa: E402

SIZES = (100, 1_000, 10_000)
NUM_CLASSES = 10
PHOTO_PX = (1024, 768)
NUM_FILES = 50  # distinct photos; the others are links to them
CHILD = """
import json, sys, time
from pathlib import Path
from finetune.runtime.device import peak_memory_mib
import finetune.pipeline, pandas, sklearn.metrics
before = peak_memory_mib()
started = time.perf_counter()
from finetune.report.report import write_report
report = write_report(Path(sys.argv[1]))
seconds = time.perf_counter() - started
print(json.dumps({
    "seconds": round(seconds, 2),
    "peak_mib": peak_memory_mib(),
    "peak_before_mib": before,
    "page_bytes": report.path.stat().st_size,
    "num_shown": report.num_photos,
    "num_missing": report.num_missing,
}))
"""


def main() -> int:
    """Measure each size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks/report.json")
    out = parser.parse_args().out
    load = os.getloadavg()[0]
    rows = [measure(number) for number in SIZES]
    document = {
        "title": "Reports by number of test photos",
        "command": "python tests/bench/report.py",
        "commit": record.commit(),
        "device": record.device(),
        "load_average_before": load,
        "versions": record.versions("jinja2", "matplotlib", "pandas", "pillow"),
        "photo_px": PHOTO_PX,
        "num_classes": NUM_CLASSES,
        "rows": rows,
    }
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def measure(number: int) -> dict[str, Any]:
    """Make the files of a run and its report."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plan = Plan(
            classes=tuple(f"class {place}" for place in range(NUM_CLASSES)),
            num_photos=number,
            accuracy=0.85,
        )
        names = make_photos(folder / "run" / "photos", number)
        run = write_run(folder / "run", plan, names=names)
        command = [sys.executable, "-c", CHILD, str(run)]
        asked = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"num_photos": number, **json.loads(asked.stdout.splitlines()[-1])}


def make_photos(folder: Path, number: int) -> list[str]:
    """Write photos of noise; give as many names as asked for."""
    from PIL import Image

    folder.mkdir(parents=True)
    names = [f"{place}.jpg" for place in range(number)]
    for place, name in enumerate(names):
        if place < NUM_FILES:
            Image.effect_noise(PHOTO_PX, 60).convert("RGB").save(folder / name, quality=90)
        else:
            (folder / name).hardlink_to(folder / names[place % NUM_FILES])
    return names


if __name__ == "__main__":
    sys.exit(main())
