"""Checks of the machine: what computes and in which precision, memory, cores, disk.

Each bound has its origin. What only costs time is a warning; what ends a run is a problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from finetune.doctor.facts import Facts, Finding, Level
from finetune.runtime.device import NO_BF16
from finetune.runtime.space import GIB, size_words
from finetune.types import Choice, MachineFacts

__all__ = [
    "check_cores",
    "check_device",
    "check_disk",
    "check_memory",
    "check_precision",
    "check_shared_memory",
]

_RUN = "finetune run --data photos"  # how a hint begins; the person's folder has another name
_MANY = 10_000  # photos: enough that worker processes pay
# docs/benchmarks/default.json, MobileNetV2 at batch 32: a probe took up to 1.2 GiB, all stages 3.6.
_LEAST_MEMORY = 5 * GIB // 4
_AMPLE_MEMORY = 4 * GIB
# A worker has two batches ready (PyTorch's prefetch factor) of 32 RGB images, a byte a value.
_BATCH_BYTES_A_PIXEL = 2 * 32 * 3
_SIDE_PX, _LARGE_SIDE_PX = 224, 448  # what most weights want, and what the larger ones do
_LEAST_DISK = 128 << 20  # for a run: the weights of a ResNet-50 alone are 98 MiB
# ViT-B/16 has 330 MiB of weights; with the two moments of AdamW, in two checkpoints, 2.3 GiB.
_AMPLE_DISK = 3 * GIB
_AMPLE_CACHE = GIB  # three times the weights of ViT-B/16; activations of 5,000 images of 200 KiB


def check_device(facts: Facts) -> Iterator[Finding]:
    """Check what computes, and that an NVIDIA GPU which is there is used."""
    device, torch = facts.device, facts.software.torch
    if device.failure is not None:
        yield Finding(
            "device",
            "problem",
            f"torch cannot compute on the device that it finds: {device.failure}",
            f"{_RUN} --device cpu",
        )
    if device.machine is None or torch is None:
        return
    machine = device.machine
    if not device.has_nvidia_driver or machine.device.startswith("cuda"):
        reason = machine.device_reason.removeprefix("auto: ")
        yield Finding("device", "ok", f"runs on {machine.device}: {reason}")
        return
    message = f"runs on {machine.device}: an NVIDIA driver is loaded, but torch {torch.version}"
    if torch.cuda is None:
        hint = "pip install --force-reinstall torch torchvision"
        yield Finding("device", "warning", f"{message} is built without CUDA", hint)
    else:
        seen = device.note or "no GPU is visible"
        message += f", built for CUDA {torch.cuda}, cannot use it ({seen})"
        yield Finding("device", "warning", message, "nvidia-smi")


def check_precision(facts: Facts) -> Iterator[Finding]:
    """Check in which precision a run would train, and why."""
    machine = facts.device.machine
    if machine is None:
        return
    if machine.device == "cpu" and machine.bf16_reason != NO_BF16:
        message = "trains in bf16, unless a run measures its network to be clearly slower in it"
    else:
        precision = "bf16" if machine.has_fast_bf16 else "fp32"
        message = f"trains in {precision}: {machine.bf16_reason}"
    yield Finding("precision", "ok", message)


def check_memory(facts: Facts) -> Iterator[Finding]:
    """Check that memory suffices for training, that of the GPU too."""
    free = facts.memory_bytes
    if free:
        smaller = f"{_RUN} --set training.batch_size=8 --set training.accumulate=4"
        if free < _LEAST_MEMORY:
            message = f"{size_words(free)} of memory are free; even a probe takes about 1.2 GiB"
            yield Finding("memory", "problem", message, "top")
        elif free < _AMPLE_MEMORY:
            message = f"{size_words(free)} of memory are free; training may take 4 GiB"
            yield Finding("memory", "warning", message, smaller)
        else:
            yield Finding("memory", "ok", f"{size_words(free)} of memory are free")
    free_gpu, total = facts.device.free_bytes, facts.device.total_bytes
    if free_gpu is not None and total is not None:
        message = f"{size_words(free_gpu)} of the GPU's {size_words(total)} of memory are free"
        if free_gpu < total / 2:
            message += ": other processes hold the rest"
            yield Finding("memory", "warning", message, "nvidia-smi")
        else:
            yield Finding("memory", "ok", message)


def check_cores(facts: Facts) -> Iterator[Finding]:
    """Check how many processes decode photos on these cores, and a container's limit."""
    workers = _workers(facts).value
    cores, quota = _count(facts.num_cpus, "core"), facts.cpu_quota
    if quota is not None and quota < facts.num_cpus:
        fit = max(1, math.floor(quota))
        yield Finding(
            "cores",
            "warning",
            f"{cores} can be seen, but this container may use the time of {quota:g}: threads and "
            "workers would wait for each other",
            f"OMP_NUM_THREADS={fit} {_RUN} --set runtime.workers={fit - 1}",
        )
    elif workers:
        message = f"{cores}: {_count(workers, 'worker')} will decode photos"
        yield Finding("cores", "ok", message)
    else:
        yield Finding("cores", "ok", f"{cores}: decoding and training take turns")


def check_shared_memory(facts: Facts) -> Iterator[Finding]:
    """Check that workers can hand over their batches through `/dev/shm`."""
    workers, free = _workers(facts).value, facts.shm_bytes
    if free is None or not workers:
        return
    need, large = (workers * _BATCH_BYTES_A_PIXEL * px * px for px in (_SIDE_PX, _LARGE_SIDE_PX))
    level: Level = "ok" if free >= large else "warning" if free >= need else "problem"
    px, bound = (_SIDE_PX, need) if level == "problem" else (_LARGE_SIDE_PX, large)
    message = (
        f"{size_words(free)} are free in /dev/shm; the batches of {_count(workers, 'worker')} take "
        f"{size_words(bound)} at {px} px"
    )
    if level == "ok":
        yield Finding("shared memory", level, message)
        return
    message += "; --shm-size=2g gives a container more"
    hint = f"{_RUN} --set runtime.workers={free * workers // bound}"
    yield Finding("shared memory", level, message, hint)


def check_disk(facts: Facts) -> Iterator[Finding]:
    """Check that there is room for runs, for what they store for later ones, and for weights."""
    runs, stores, weights = facts.runs, facts.stores, facts.weights_folder
    elsewhere = f"{_RUN} --out OTHER-DISK/run"
    if not runs.free_bytes:
        message = f"nothing can be written to {runs.path}, where runs go"
        yield Finding("disk", "problem", message, elsewhere)
    else:
        message = f"{size_words(runs.free_bytes)} are free for runs in {runs.path}"
        if runs.free_bytes < _LEAST_DISK:
            yield Finding("disk", "problem", message, elsewhere)
        elif runs.free_bytes < _AMPLE_DISK:
            message += "; one of a large network may take 3 GiB"
            yield Finding("disk", "warning", message, elsewhere)
        else:
            yield Finding("disk", "ok", message)
    if stores.free_bytes < _AMPLE_CACHE:
        message = (
            f"{size_words(stores.free_bytes)} can be written to {stores.path}: what frozen layers "
            "compute may be computed again"
        )
        yield Finding("disk", "warning", message, "finetune cache clear")
    if weights.free_bytes < _AMPLE_CACHE:
        message = (
            f"{size_words(weights.free_bytes)} can be written to {weights.path}: new weights may "
            "not fit"
        )
        yield Finding("disk", "warning", message, "export HF_HOME=OTHER-DISK/huggingface")


def _workers(facts: Facts) -> Choice[int]:
    """Choose workers as a run on many photos does."""
    plain = MachineFacts("cpu", "", has_fast_bf16=False, num_cpus=facts.num_cpus)
    return (facts.device.machine or plain).choose_workers(_MANY)


def _count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
