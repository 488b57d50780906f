"""What it brings that freed memory is kept: passes, training steps and peak memory of backbones.

    python tests/bench/allocator.py --out docs/benchmarks/allocator.json

Every figure is the median of some processes, in turn with and without; both do the same in fp32 on
images of noise: the network with its normalisations folded, and forward, backward, AdamW.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

BACKBONES = (
    "mobilenetv2_100",
    "efficientnet_b0",
    "resnet50",
    "convnext_atto",
    "vit_tiny_patch16_224",
)
BATCH_SIZE = 32
NUM_BATCHES = 4  # after one that sets things up
MEASURED = ("passes", "steps", "peak_memory_mib")


def main() -> int:
    """Measure every backbone and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, metavar=("BACKBONE", "KEEPS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measure(given.child[0], keeps=given.child[1] == "kept")))
        return 0
    from record import commit, device, versions

    rows = []
    for backbone in BACKBONES:
        rows.append(compared(backbone, given.rounds))
        print(json.dumps(rows[-1]), flush=True)
    document = {
        "title": "Freed memory kept or given back",
        "command": "python tests/bench/allocator.py --out docs/benchmarks/allocator.json",
        "commit": commit(),
        "device": device(),
        "versions": versions("torch", "timm"),
        "notes": [
            f"images per second, fp32, batches of {BATCH_SIZE} at 224 px, {NUM_BATCHES} batches; "
            f"medians of {given.rounds} processes each, in turn",
            "given back: glibc as it is; kept: in `freed_memory_kept`",
        ],
        "rows": rows,
    }
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


def compared(backbone: str, rounds: int) -> dict[str, Any]:
    """Measure one backbone both ways, in turn."""
    found: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    for number in range(rounds):
        for name in sorted(found, reverse=bool(number % 2)):
            found[name].append(child(backbone, name))
    row: dict[str, Any] = {"backbone": backbone}
    for measured in MEASURED:
        back, kept = (statistics.median(one[measured] for one in found[name]) for name in found)
        row |= {f"{measured}, given back": round(back, 1), f"{measured}, kept": round(kept, 1)}
        row[f"{measured}, ratio"] = round(kept / back, 2)
    return row


def child(backbone: str, name: str) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--child", backbone, name]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(backbone: str, *, keeps: bool) -> dict[str, float]:
    """Give images per second of passes and of steps, and the peak of memory."""
    import torch
    from torch.nn.functional import cross_entropy

    from finetune.model.backbone import timm
    from finetune.model.fuse import fused
    from finetune.runtime.allocator import freed_memory_kept

    torch.manual_seed(0)
    layout = torch.contiguous_format if backbone.startswith("vit") else torch.channels_last
    network = timm.create_model(backbone, num_classes=10).to(memory_format=layout)
    ready = fused(network.eval(), (3, 224, 224)).to(memory_format=layout)
    images = torch.randn(BATCH_SIZE, 3, 224, 224).to(memory_format=layout)
    labels = torch.arange(BATCH_SIZE) % 10
    optimizer = torch.optim.AdamW(network.parameters())

    @torch.inference_mode()
    def evaluate() -> None:
        ready(images)

    def learn() -> None:
        network.train()
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()

    with freed_memory_kept() if keeps else nullcontext():
        passes, steps = speed_of(evaluate), speed_of(learn)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"passes": passes, "steps": steps, "peak_memory_mib": peak}


def speed_of(step: Callable[[], None]) -> float:
    """Give images per second."""
    step()
    started = time.perf_counter()
    for _ in range(NUM_BATCHES):
        step()
    return BATCH_SIZE * NUM_BATCHES / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
