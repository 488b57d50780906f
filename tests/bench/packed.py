"""Passes with folded convolutions as they are and packed for oneDNN: seconds, and what differs.

    python tests/bench/packed.py --out docs/benchmarks/packed.json

Each network has random weights, a head of ten classes and the layout that a run chooses for it;
both passes take the same random images in turn. Images per second are medians of all rounds, `gain`
is the median of the ratios within a round, `difference` the largest of a logit, as a share of the
largest.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from record import commit, device, versions

BACKBONES = (
    "mobilenetv2_100", "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0",
    "tf_efficientnet_b0", "tf_efficientnetv2_b0", "resnet18", "resnet50", "regnetx_002",
    "regnety_004", "ghostnet_100", "mobilevit_xxs", "repvgg_a0", "densenet121",
)  # fmt: skip


def main() -> int:
    """Measure one network after the other, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=BACKBONES)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    rows = []
    for name in given.only:
        rows.append({"backbone": name, **measure(name, given)})
        print(json.dumps(rows[-1]), flush=True)
    document = {
        "title": "Folded passes, as they are and packed",
        "command": "python tests/bench/packed.py --out docs/benchmarks/packed.json",
        "commit": commit(),
        "device": device(),
        "versions": versions(),
        "rows": rows,
    }
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0


@torch.inference_mode()
def measure(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Measure one network."""
    from finetune.model import fuse
    from finetune.model.create import create_model
    from finetune.model.family import describe_backbone
    from finetune.model.packed import PackedConvolution
    from finetune.recipe.load import load_recipe
    from finetune.runtime.allocator import freed_memory_kept

    recipe = load_recipe({"model": {"backbone": name, "pretrained": False}})
    model = create_model(recipe, num_classes=10)
    is_last = describe_backbone(model.network, model.preprocessing).prefers_channels_last("cpu")
    layout = torch.channels_last if is_last else torch.contiguous_format
    network = model.network.eval().to(memory_format=layout)
    packed = fuse.fused(network, network.input_size)
    can_pack, fuse.can_pack = fuse.can_pack, lambda device: False
    folded = fuse.fused(network, network.input_size)
    fuse.can_pack = can_pack
    images = torch.randn(given.images, *network.input_size)
    passes = {"folded": folded, "packed": packed}
    with freed_memory_kept():
        expected, found = folded(images), packed(images)
        seconds = [
            {which: time_pass(passes[which], images) for which in order}
            for order in turns(given.rounds)
        ]
    return {
        "num_packed": sum(isinstance(module, PackedConvolution) for module in packed.modules()),
        **{
            f"{which}_images_per_second": round(given.images / median(s[which] for s in seconds), 1)
            for which in passes
        },
        "gain": round(median(s["folded"] / s["packed"] for s in seconds), 3),
        "difference": float((expected - found).abs().max() / expected.abs().max()),
    }


def turns(rounds: int) -> list[tuple[str, str]]:
    """Let each begin every other round."""
    orders = ("folded", "packed"), ("packed", "folded")
    return [orders[number % 2] for number in range(rounds)]


def time_pass(network: Any, images: torch.Tensor) -> float:
    """Seconds of one pass."""
    started = time.perf_counter()
    network(images)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
