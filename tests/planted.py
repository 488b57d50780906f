"""Facts of machines that the doctor is shown: a healthy one, and others that differ from it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.doctor.facts import (
    DeviceFacts,
    Extra,
    Facts,
    HubFacts,
    Need,
    Place,
    SoftwareFacts,
    TorchFacts,
    WeightsFacts,
)
from finetune.errors import DISTRIBUTION
from finetune.types import MachineFacts

GIB = 1 << 30
MIB = 1 << 20
TORCH = Need(DISTRIBUTION, "torch", ">=2.6,<3", "2.13.0+cpu")
TORCHVISION = Need(DISTRIBUTION, "torchvision", ">=0.21,<1", "0.28.0")
PAIR = Need("torchvision", "torch", "==2.13.0", "2.13.0+cpu")
PEFT = Need(DISTRIBUTION, "peft", ">=0.18,<1", "0.21.2")
CPU = MachineFacts("cpu", "auto: no GPU that torch can use is there", False, 8, "not for all")
GPU = MachineFacts("cuda:0", "auto: NVIDIA L4 is there", True, 8, "this GPU has bf16 matrix units")
HEALTHY = Facts(
    software=SoftwareFacts(
        python="3.12.3",
        python_allowed=">=3.11,<3.14",
        version="0.1.0",
        needs=(TORCH, TORCHVISION, PAIR),
        extras=(Extra("lora", (PEFT,)),),
        failures=(),
        torch=TorchFacts("2.13.0+cpu", None, "0.28.0+cpu", True),
    ),
    device=DeviceFacts(CPU),
    num_cpus=8,
    cpu_quota=None,
    memory_bytes=16 * GIB,
    shm_bytes=8 * GIB,
    runs=Place(Path("/photos/runs"), 100 * GIB),
    stores=Place(Path("/cache/activations"), 100 * GIB),
    weights_folder=Place(Path("/cache/hub"), 100 * GIB),
    hub=HubFacts(),
    cached=WeightsFacts(("timm/resnet18.a1_in1k",), 2, 5 * MIB),
)


def with_software(**changes: Any) -> Facts:
    """Change what is installed on the healthy machine."""
    return replace(HEALTHY, software=replace(HEALTHY.software, **changes))


def with_device(**changes: Any) -> Facts:
    """Change what computes on the healthy machine."""
    return replace(HEALTHY, device=replace(HEALTHY.device, **changes))
