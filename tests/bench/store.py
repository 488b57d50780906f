"""How fast stored activations are read, beside what else could hold them.

    python tests/bench/store.py --out store.json

Batches are drawn at random from stores of 5 KiB and of 400 KiB an image, warm in the system's
cache. In one run, alternated: the store on disk, the store in memory, `torch.stack` over a list of
tensors in memory, and fancy indexing of `np.memmap`. Ratios are of speeds, by medians; `located`
reads by places looked up once, as `np.memmap` does. Also: what it costs to write, to open again,
and to check every record once.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import record
import torch

from finetune.model.store import ActivationStore, StoreKey, image_id, open_store

CASES = {"5 KiB": (1280, 40_000, 256), "400 KiB": (102_400, 1_500, 32)}  # values, images, batch
NUM_BATCHES = 40
READERS = (
    "store_on_disk", "store_on_disk_located", "store_in_memory", "stack_of_list", "memmap_indexed",
)  # fmt: skip
Reader = Callable[[list[int], torch.Tensor], torch.Tensor]  # positions, as a list and as a tensor


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    document = {
        "title": "Reading stored activations",
        "commit": record.commit(),
        "command": f"python tests/bench/store.py --repeats {options.repeats}",
        "device": record.device(),
        "notes": [
            f"load average {os.getloadavg()[0]:.1f} at the start: ratios, within one run, say more "
            "than speeds",
            "ratios are of speeds; located: by places looked up once, as the memory map is indexed",
            f"images/s of {', '.join(READERS)}; write, open, check: seconds for all images",
        ],
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "rows": [measure(name, *case, options.repeats) for name, case in CASES.items()],
    }
    text = json.dumps(document, indent=1) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


def measure(name: str, width: int, num_images: int, batch: int, repeats: int) -> dict[str, object]:
    """Measure one size of record."""
    ids = [image_id(str(number)) for number in range(num_images)]
    values = torch.randn(num_images, width)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        parts: dict[str, float] = {}
        with opened(folder, width, "disk") as store:
            parts["write_seconds"] = seconds(lambda: fill(store, ids, values))
        started = time.perf_counter()
        disk = held.enter_context(opened(folder, width, "disk"))
        disk.missing([])
        parts["open_seconds"] = time.perf_counter() - started
        parts["check_seconds"] = seconds(lambda: disk.missing(ids))
        parts["check_again_seconds"] = seconds(lambda: disk.missing(ids))
        memory = held.enter_context(opened(folder, width, "memory"))
        fill(memory, ids, values)
        plain = Path(folder) / "plain.bin"
        values.numpy().tofile(plain)
        mapped = np.memmap(plain, dtype=np.float32, mode="r", shape=(num_images, width))
        listed = [row.clone() for row in values]
        at = disk.locate(ids)
        readers: dict[str, Reader] = {
            "store_on_disk": lambda chosen, _: disk.read([ids[one] for one in chosen])[0],
            "store_on_disk_located": lambda _, chosen: disk.read_at(at[chosen])[0],
            "store_in_memory": lambda chosen, _: memory.read([ids[one] for one in chosen])[0],
            "stack_of_list": lambda chosen, _: torch.stack([listed[one] for one in chosen]),
            "memmap_indexed": lambda _, chosen: torch.from_numpy(mapped[chosen.numpy()]),
        }
        medians = read_all(readers, num_images, batch, repeats)
    size = num_images * width * 4
    return {
        "record": name,
        "num_images": num_images,
        "batch": batch,
        **{reader: round(batch / medians[reader]) for reader in READERS},
        "disk_to_stack": round(medians["stack_of_list"] / medians["store_on_disk"], 3),
        "located_to_stack": round(medians["stack_of_list"] / medians["store_on_disk_located"], 3),
        "located_to_memmap": round(medians["memmap_indexed"] / medians["store_on_disk_located"], 3),
        "disk_to_memmap": round(medians["memmap_indexed"] / medians["store_on_disk"], 3),
        "memory_to_stack": round(medians["stack_of_list"] / medians["store_in_memory"], 3),
        **{part: round(found, 5) for part, found in parts.items()},
        "write_gb_per_second": round(size / parts["write_seconds"] / 1e9, 2),
        "check_gb_per_second": round(size / parts["check_seconds"] / 1e9, 2),
    }


def read_all(
    readers: dict[str, Reader],
    num_images: int,
    batch: int,
    repeats: int,
) -> dict[str, float]:
    """Give the median seconds of a batch by each reader; the first round warms and is left out."""
    generator = torch.Generator().manual_seed(0)
    rounds: dict[str, list[float]] = {reader: [] for reader in readers}
    for _ in range(repeats + 1):
        drawn = torch.randint(num_images, (NUM_BATCHES, batch), generator=generator)
        batches = list(zip(drawn.tolist(), drawn, strict=True))
        for reader, read in readers.items():
            started = time.perf_counter()
            for chosen in batches:
                read(*chosen)
            rounds[reader].append((time.perf_counter() - started) / NUM_BATCHES)
    return {reader: statistics.median(found[1:]) for reader, found in rounds.items()}


def opened(folder: str, width: int, place: str) -> ActivationStore:
    """Open the store of the benchmark."""
    key = StoreKey("benchmark", "{}")
    path = Path(folder)
    return open_store(key, [(width,)], label="benchmark", place=place, folder=path)  # type: ignore[arg-type]


def fill(store: ActivationStore, ids: list[bytes], values: torch.Tensor) -> None:
    """Store everything in batches of 64."""
    for first in range(0, len(ids), 64):
        store.add(ids[first : first + 64], [values[first : first + 64]])


def seconds(call: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
