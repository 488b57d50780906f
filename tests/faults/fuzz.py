"""Damaged and hostile files for everything that reads files: only our own errors may come of them.

    python tests/faults/fuzz.py --cases 1000000 --out docs/benchmarks/fuzz.json

A case is a good file with a few edits: bytes changed, removed, repeated, or words put in that such
a file gives a meaning to. hypothesis draws the edits, and makes a case that fails as small as it
can. A case fails if anything but a `FinetuneError` is raised, or if it takes longer than
`PATIENCE_SECONDS`; memory is limited, so that one which asks for too much fails as well.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from targets import TARGETS, Target

from finetune.errors import FinetuneError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
import record

__all__ = ["Found", "edited", "fuzz"]

ROUND = 2_000  # cases; hypothesis remembers every case of a round
PATIENCE_SECONDS = 5.0
MEMORY_BYTES = 6 * 1024**3  # of addresses: torch alone takes two
MOST_EDITS, EDIT_BYTES = 6, 6
HEAD_BYTES = 2_048  # what says most about a file stands at its beginning: half of the edits


@dataclass(slots=True)
class Found:
    """What came of the cases of one target.

    Attributes:
        cases: How many were tried.
        read: How many of them were taken for good files.
        slowest_seconds: Of one case.
    """

    cases: int = 0
    read: int = 0
    slowest_seconds: float = 0.0


def main() -> int:
    """Try every target, two at a time, and write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--targets", nargs="+", choices=tuple(TARGETS), default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given_ = parser.parse_args()
    shares = sum(TARGETS[name].share for name in given_.targets)
    jobs = [
        (name, round(given_.cases * TARGETS[name].share / shares), given_.seed)
        for name in given_.targets
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = pool.starmap(row_of, jobs, chunksize=1)
    document = {
        "title": "Damaged and hostile files",
        "command": f"python tests/faults/fuzz.py --cases {given_.cases}",
        "commit": record.commit(),
        "device": record.device(),
        "notes": [
            "cases: good files with edits that hypothesis drew; failed: anything but our own "
            f"errors, or more than {PATIENCE_SECONDS:g} seconds, or {MEMORY_BYTES >> 30} GiB"
        ],
        "cases": sum(row["cases"] for row in rows),
        "failed": sum(row["failed"] for row in rows),
        "rows": rows,
    }
    text = json.dumps(document, indent=1) + "\n"
    if given_.out:
        given_.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 1 if document["failed"] else 0


def row_of(name: str, cases: int, first_seed: int) -> dict[str, Any]:
    """Fuzz one target in a process of its own; give its row."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        found, failures = fuzz(TARGETS[name], Path(folder), cases, first_seed=first_seed)
    for failure in failures:
        print(f"{name}: {failure}", file=sys.stderr, flush=True)
    return {
        "files": name,
        "cases": found.cases,
        "failed": len(failures),
        "read": found.read,
        "slowest_seconds": round(found.slowest_seconds, 3),
    }


def fuzz(
    target: Target, folder: Path, cases: int, *, first_seed: int = 0
) -> tuple[Found, list[str]]:
    """Try so many cases of a target, in rounds; give what was counted, and what failed."""
    read = target.prepare(folder)
    found, failures = Found(), []
    for number, begun in enumerate(range(0, cases, ROUND)):
        try:
            _round(target, read, found, min(ROUND, cases - begun), seed_=first_seed + number)
        except Exception as error:  # whatever it is: that is what is looked for
            notes = getattr(error, "__notes__", ())  # the case, as small as it could be made
            failures.append(" ".join([f"{type(error).__name__}: {error}", *notes]))
    return found, failures


def _round(
    target: Target, read: Callable[[bytes], object], found: Found, cases: int, *, seed_: int
) -> None:
    """Try the cases of one round; raise what the smallest of those that fail raises."""

    @seed(seed_)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(_cases(target))
    def try_one(case: bytes) -> None:
        found.cases += 1
        started = time.perf_counter()
        try:
            read(case)
            found.read += 1
        except FinetuneError:
            pass
        seconds = time.perf_counter() - started
        found.slowest_seconds = max(found.slowest_seconds, seconds)
        if seconds > PATIENCE_SECONDS:
            raise TimeoutError(f"{seconds:.1f} s")

    try_one()


def _cases(target: Target) -> st.SearchStrategy[bytes]:
    """Give good files with up to so many edits; fewer and earlier ones count as simpler."""
    drawn = st.binary(min_size=1 + EDIT_BYTES, max_size=1 + MOST_EDITS * EDIT_BYTES)
    return drawn.map(lambda draw: edited(target, draw))


def edited(target: Target, draw: bytes) -> bytes:
    """Make a case of what was drawn: a byte says which good file, each six more one edit.

    Of an edit the first byte says what is done, two say where, one over what length, one which word
    is put there; from 192 on that byte and the last are put there themselves.
    """
    content = target.seeds[draw[0] % len(target.seeds)]
    for begin in range(1, len(draw) - EDIT_BYTES + 1, EDIT_BYTES):
        what, high, low, length, word, literal = draw[begin : begin + EDIT_BYTES]
        reach = min(len(content), HEAD_BYTES) if what >= 128 else len(content)
        start = (high << 8 | low) * reach >> 16
        end = start + int((length / 255) ** 4 * (len(content) - start))  # most are short
        put = bytes((word, literal)) if word >= 192 else target.words[word % len(target.words)]
        content = EDITS[what % len(EDITS)](content, start, end, put)
    return content


EDITS: tuple[Callable[[bytes, int, int, bytes], bytes], ...] = (
    lambda content, start, end, put: content[:start] + put + content[start + len(put) :],
    lambda content, start, end, put: content[:start] + put + content[start:],
    lambda content, start, end, put: content[:start] + content[end:],
    lambda content, start, end, put: content[:start] + content[start:end] * 3 + content[end:],
    lambda content, start, end, put: content[:start] + put + content[end:],
)


if __name__ == "__main__":
    sys.exit(main())
