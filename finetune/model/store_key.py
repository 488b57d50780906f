"""What a stored activation is of: the key of its store, and its id within it.

Notable choice: what cannot be told apart cheaply counts as different. A version of a library that
decodes, transforms or computes, or other instructions of the CPU, make another key; at worst an
activation is computed again.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch

from finetune.version import __version__

__all__ = ["Dtype", "StoreKey", "device_kind", "image_id", "library_versions"]

Dtype = Literal["float32", "bfloat16", "float16"]

# What decodes, transforms and computes.
_LIBRARIES = (
    "torch", "torchvision", "timm", "numpy", "pillow", "albumentations", "albucore",
    "opencv-python-headless",
)  # fmt: skip


def library_versions() -> str:
    """Give the versions of all that decodes, transforms and computes, as canonical JSON."""
    found = {"finetune": __version__, "torch build": torch.__version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def device_kind(device: torch.device | str) -> str:
    """Name what computes, so far as results depend on it: the GPU, or the CPU's instructions."""
    kind = torch.device(device)
    if kind.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(kind)}"
    if kind.type == "cpu":
        return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return kind.type


@dataclass(frozen=True, slots=True)
class StoreKey:
    """Everything an activation depends on except the image.

    Attributes:
        computation: Digest of the frozen computation: its graph and its weights.
        preprocessing: Canonical JSON of all between the file and the network: decoding, geometry,
            normalisation, and for augmented views the augmentation and its seed.
        dtype: What is stored: `float32`, `bfloat16` or `float16`.
        memory_format: Of the network; `channels_last` also brings (C, H, W) back so.
        precision: Of the pass: `fp32`, `bf16` or `fp16`.
        device: What computes, as `device_kind` names it.
        versions: Of the libraries.
    """

    computation: str
    preprocessing: str
    dtype: Dtype = "float32"
    memory_format: Literal["contiguous", "channels_last"] = "contiguous"
    precision: str = "fp32"
    device: str = "cpu"
    versions: str = field(default_factory=library_versions)


def image_id(digest: str, view: int = 0) -> bytes:
    """Name an activation within a store, by what it is of.

    Args:
        digest: Of the image's file, as `Sample.digest`.
        view: 0 for the image as evaluation sees it, k for its k-th augmented view.

    Returns:
        16 bytes.
    """
    return hashlib.blake2b(f"{digest} {view}".encode(), digest_size=16).digest()
