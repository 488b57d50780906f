"""Comes first in every peer: torchvision's operators where they do not load, and no network.

A torchvision built for CUDA beside a torch built for the CPU fails at import with "operator
torchvision::nms does not exist". None of the peers calls those operators, so that it is enough to
register their schemas, and only where they are missing.
"""

import os
import sys
from typing import Any

__all__ = ["prepare"]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_KEPT: list[Any] = []  # a registration lives as long as its library object


def prepare() -> None:
    """Make `import torchvision` work, and keep the Hugging Face libraries from the network."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library: Any = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _KEPT.append(library)


prepare()
