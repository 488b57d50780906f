"""Time networks in both memory formats and precisions, and compiled: what the rules stand on.

    python tests/bench/arithmetic.py --out docs/benchmarks/arithmetic.json
    python tests/bench/arithmetic.py --out … --only resnet18 --compile

Images per second, by the processor time of the calling thread, of a batch of random images and of
random weights; the best of some rounds in turn. `pass` is a pass in eval mode with batch
normalisations folded, `step` a training step of everything. What the file has already is not
measured again. `--compile` adds the same in fp32 as it is and through torch.compile, and the
processor seconds that compiling took with an empty cache.
"""

import argparse
import copy
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from record import commit, device, versions

BACKBONES = (
    "mobilenetv2_100", "mobilenetv3_small_100", "efficientnet_b0", "resnet18", "resnet50",
    "regnetx_002", "ghostnet_100", "convnext_atto", "mobilevit_xxs", "edgenext_xx_small",
    "vit_tiny_patch16_224", "resmlp_12_224",
)  # fmt: skip
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
Columns = dict[str, Any]
Timers = dict[tuple[str, str], Callable[[], float]]  # by kind of work and column


def main() -> int:
    """Measure what is missing, and write the file after each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=BACKBONES)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    known = json.loads(given.out.read_text())["rows"] if given.out.exists() else []
    rows: dict[tuple[str, str], Columns] = {(row["backbone"], row["work"]): row for row in known}
    sign = "compiled_fp32" if given.compile else "contiguous_fp32"
    for name in given.only:
        if sign not in rows.get((name, "pass"), {}):
            for work, columns in measure(name, given).items():
                row = rows.setdefault((name, work), {"backbone": name, "work": work})
                row |= columns
                print(json.dumps(row), flush=True)
        write(given.out, list(rows.values()))
    return 0


def measure(name: str, given: argparse.Namespace) -> dict[str, Columns]:
    """Measure one network; give columns by kind of work."""
    from finetune.model.create import create_model
    from finetune.model.family import describe_backbone
    from finetune.recipe.load import load_recipe

    recipe = load_recipe({"model": {"backbone": name, "pretrained": False}})
    model = create_model(recipe, num_classes=10)
    facts = describe_backbone(model.network, model.preprocessing)
    if given.compile:
        layout = "channels_last" if facts.prefers_channels_last("cpu") else "contiguous"
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            return compiled(model.network, layout, given)
    timers: Timers = {}
    for layout in FORMATS:
        if not (layout == "channels_last" and facts.is_narrow):
            timers |= format_timers(model.network, layout, given.images)
    return {
        work: {"family": facts.family, **columns} for work, columns in best(timers, given).items()
    }


def format_timers(network: Any, layout: str, num_images: int) -> Timers:
    """Give what times passes and steps of a copy of a network in one memory format."""
    ready, trained, images = prepare(network, layout, num_images)
    timers: Timers = {}
    for name, precision in PRECISIONS.items():
        column = f"{layout}_{name}"
        timers["pass", column] = lambda p=precision: time_pass(ready, images, p)
        timers["step", column] = lambda p=precision: time_step(trained, images, p)
    return timers


def compiled(network: Any, layout: str, given: argparse.Namespace) -> dict[str, Columns]:
    """Measure a network as it is and compiled, and what compiling takes, children included."""
    ready, trained, images = prepare(network, layout, given.images)
    timers: Timers = {}
    seconds = {}
    for work, module, timer in (("pass", ready, time_pass), ("step", trained, time_step)):
        faster = torch.compile(module)
        started = processor_seconds()
        timer(faster, images, None)
        seconds[work] = round(processor_seconds() - started, 1)
        timers[work, "uncompiled_fp32"] = lambda m=module, t=timer: t(m, images, None)
        timers[work, "compiled_fp32"] = lambda m=faster, t=timer: t(m, images, None)
    return {
        work: {**columns, "compile_seconds": seconds[work]}
        for work, columns in best(timers, given).items()
    }


def prepare(network: Any, layout: str, num_images: int) -> tuple[Any, Any, torch.Tensor]:
    """Give a network for passes, one for steps, and images, in one memory format."""
    from finetune.model.fuse import fused

    images = torch.randn(num_images, *network.input_size).to(memory_format=FORMATS[layout])
    trained = copy.deepcopy(network).to(memory_format=FORMATS[layout]).train()
    ready = fused(copy.deepcopy(trained).eval(), network.input_size)
    return ready, trained, images


def best(timers: Timers, given: argparse.Namespace) -> dict[str, Columns]:
    """Run what times in turn; give the best images per second of each, the first round left out."""
    rates: dict[str, Columns] = {work: {} for work, _ in timers}
    for round_index in range(given.rounds + 1):
        for (work, column), timer in timers.items():
            rate = round(given.images / timer(), 1)
            if round_index:
                rates[work][column] = max(rate, rates[work].get(column, rate))
    return rates


@torch.inference_mode()
def time_pass(network: Any, images: torch.Tensor, precision: torch.dtype | None) -> float:
    """Time a pass of evaluation."""
    started = time.thread_time()
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        network(images)
    return time.thread_time() - started


def time_step(network: Any, images: torch.Tensor, precision: torch.dtype | None) -> float:
    """Time a forward and a backward pass."""
    network.zero_grad()
    started = time.thread_time()
    with torch.autocast("cpu", dtype=precision, enabled=precision is not None):
        logits = network(images)
    logits.float().square().mean().backward()
    return time.thread_time() - started


def processor_seconds() -> float:
    """Give the processor time of this process and of the compilers that it started and ended."""
    return sum(os.times()[:4])


def instructions() -> str:
    """Name the instructions that decide about bf16."""
    flags = Path("/proc/cpuinfo")
    has_tiles = flags.exists() and "amx_tile" in flags.read_text(encoding="utf-8")
    return f"{torch.backends.cpu.get_cpu_capability()} {'with' if has_tiles else 'without'} AMX"


def write(out: Path, rows: list[Columns]) -> None:
    """Write the file whole, one row a line."""
    head = {
        "title": "Memory formats, precisions and compiling",
        "command": "python tests/bench/arithmetic.py --out docs/benchmarks/arithmetic.json\n"
        "python tests/bench/arithmetic.py --out docs/benchmarks/arithmetic.json --compile \\\n"
        "  --images 16 --only mobilenetv2_100 resnet18 vit_tiny_patch16_224",
        "commit": commit(),
        "device": f"{device()}, {instructions()}",
        "threads": torch.get_num_threads(),
        "versions": versions("torch", "timm"),
        "notes": [
            "images per second, by the processor time of the calling thread, of random weights: "
            "the best of 4 rounds in turn on a busy machine; ratios within a row say more",
            "pass: eval mode, normalisations folded; step: forward and backward of everything",
            "formats and precisions with batches of 8, as recipes are resolved; uncompiled and "
            "compiled with batches of 16 in the format of the rule",
            "compile_seconds: of processor time, of the compiler and all that it starts, once for "
            "each size of batch",
        ],
    }
    opening = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = ",\n".join(json.dumps(row) for row in rows)
    out.write_text(f'{opening},\n "rows": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
