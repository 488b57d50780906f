"""Take every architecture of timm through freezing, saving and, where it is small, a training step.

    python tests/bench/backbones.py shape                  all of them, on the meta device
    python tests/bench/backbones.py step --shard 0/4       those under 30 M parameters, a quarter
    python tests/bench/backbones.py split --shard 0/4      the same, cut where the last group begins
    python tests/bench/backbones.py merge                  rows of all shards into one file

A row is written when it is known, to a file of its shard; an architecture that has one is not taken
again, so that a sweep can be ended at any moment and taken up later. `--retry` takes those that
failed once more. `docs/reference/backbones.md` is made from the merged file.
"""

import argparse
import json
import logging
import os
import platform
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TIERS = ("shape", "step", "split")
MOST_PARAMETERS = 30_000_000
ROOT = Path(__file__).resolve().parents[2]
FACTS = ("family", "head", "groups", "blocks", "grouped_by")
MERGED = ROOT / "docs" / "benchmarks" / "backbones.json"


def main() -> int:
    """Run one tier of the sweep, or merge what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tier", choices=[*TIERS, "merge"])
    parser.add_argument("--shard", default="0/1", help="which part of how many: 0/4")
    parser.add_argument("--rows", type=Path, default=ROOT / ".sweep", help="folder of the rows")
    parser.add_argument("--out", type=Path, default=MERGED)
    parser.add_argument("--only", nargs="+", help="names instead of all")
    parser.add_argument("--retry", action="store_true")
    given = parser.parse_args()
    if given.tier == "merge":
        return merge(given.rows, given.out)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    return sweep(given)


def sweep(given: argparse.Namespace) -> int:
    """Take the architectures of a shard through a tier; give how many failed."""
    import torch

    part, of = map(int, given.shard.split("/"))
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # the process with timm alone rounds as this one does
    names = given.only or candidates(given.tier)
    given.rows.mkdir(parents=True, exist_ok=True)
    file = given.rows / f"{given.tier}-{part}-of-{of}.jsonl"
    known = {
        row["name"] for row in read(given.rows, given.tier) if not (given.retry and "error" in row)
    }
    with ExitStack() as stack, file.open("a", encoding="utf-8") as stream:
        check = checker(given.tier, stack)
        for name in names[part::of]:
            if name in known and not given.only:
                continue
            row = measure(name, check)
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            print(row["name"], row.get("error", "pass"), f"{row['seconds']} s", flush=True)
    failed = [row for row in read(given.rows, given.tier) if "error" in row]
    print(f"{len(failed)} failed")
    return 0


def candidates(tier: str) -> list[str]:
    """List the architectures of a tier, in timm's order."""
    from finetune.model.facts import load_facts

    facts = load_facts()
    return [f.name for f in facts if tier == "shape" or f.num_parameters < MOST_PARAMETERS]


def checker(tier: str, stack: ExitStack) -> Callable[[str], dict[str, Any]]:
    """Give the check of a tier; a step needs a process with timm alone."""
    from every_backbone import check_shape, check_split, check_step, timm_alone

    if tier != "step":
        return {"shape": check_shape, "split": check_split}[tier]
    alone = stack.enter_context(timm_alone())
    return lambda name: check_step(name, alone)


def measure(name: str, check: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """Check one architecture; what goes wrong stands in its row."""
    started = time.perf_counter()
    try:
        row = check(name)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        first = (str(error) or type(error).__name__).splitlines()[0]
        row = {
            "error": f"{type(error).__name__}: {first} ({Path(place.filename).name}:{place.lineno})"
        }
    return {"name": name, **row, "seconds": round(time.perf_counter() - started, 2)}


def read(folder: Path, tier: str) -> Iterator[dict[str, Any]]:
    """Read the rows of all shards of a tier; of several of one architecture the last counts."""
    rows: dict[str, dict[str, Any]] = {}
    for file in sorted(folder.glob(f"{tier}-*.jsonl"), key=lambda file: file.stat().st_mtime):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows[row["name"]] = row
    return iter(rows.values())


def merge(folder: Path, out: Path) -> int:
    """Write one row an architecture, with what the tiers found, into one file.

    What the file has of a tier that was not swept here stays.
    """
    from finetune.model.facts import load_facts

    earlier = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    before = {row["name"]: row for row in earlier.get("rows", ())}
    taken = {tier: {row["name"]: row for row in read(folder, tier)} for tier in TIERS}
    shapes, steps, splits = (taken[tier] for tier in TIERS)
    rows = []
    for facts in load_facts():
        shape, step = shapes.get(facts.name), steps.get(facts.name)
        row = {"name": facts.name, "num_parameters": facts.num_parameters}
        row |= {"shape": None, "step": None} | before.get(facts.name, {})
        if shape:
            row |= {key: shape[key] for key in FACTS if key in shape} | {"shape": result(shape)}
        if step:
            row |= {"step": result(step)}
            row |= {"step_size": step["size"]} if "size" in step else {}
        row |= split_facts(splits.get(facts.name))
        rows.append(row)
    head = {
        "title": "Every architecture of timm",
        "command": "python tests/bench/backbones.py shape; … step; … split; … merge",
        "versions": {name: version(name) for name in ("torch", "timm")},
        "device": f"one core a shard, {platform.machine()}, no GPU",
        "seconds": earlier.get("seconds", {})
        | {
            tier: round(sum(row["seconds"] for row in found.values()))
            for tier, found in taken.items()
            if found
        },
        "num_candidates": {tier: len(candidates(tier)) for tier in TIERS},
    }
    opening = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    out.write_text(f'{opening},\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    for tier, found in taken.items():
        print(tier, len(found), "taken,", sum("error" in row for row in found.values()), "failed")
    return 0


def split_facts(row: dict[str, Any] | None) -> dict[str, Any]:
    """Say how an architecture was split and how many bytes an image crosses; nothing untaken."""
    if row is None:
        return {}
    how = row.get("error", row.get("how"))
    if how == "none":
        how = f"not cut, {row['reason']}"
    return {"split": how, "split_bytes": row.get("bytes")}


def result(row: dict[str, Any]) -> str:
    """Say how a tier ended for an architecture."""
    found: str = row.get("error", "pass")
    return found


if __name__ == "__main__":
    sys.exit(main())
