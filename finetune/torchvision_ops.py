"""Let `import torchvision` succeed where its compiled operators do not load.

A CUDA-built torchvision beside a CPU-only torch fails at import with "operator torchvision::nms
does not exist", and timm with it. No operator of torchvision is ever called by this package, so
it is enough to register the schemas that torchvision's Python files refer to while they load.
It is done only where they are missing, and only at the doors that import timm or torchvision.
"""

from functools import cache
from typing import Any

from finetune.compiler import compiler_deferred

__all__ = ["register_missing_ops"]

# The schemas that torchvision's modules look up while they are imported (seen in 0.21 to 0.28).
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def register_missing_ops() -> bool:
    """Register torchvision's operator schemas where the compiled ones are out of reach.

    Returns:
        True where the schemas had to be registered, False where torchvision is whole.
    """
    import torch

    try:
        _import_torchvision()
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return False
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        library.define(schema)
    # Careful: the registration lives as long as the library object; an attribute keeps it.
    register_missing_ops.library = library  # type: ignore[attr-defined]
    _forget_half_imported()
    _import_torchvision()
    return True


def _import_torchvision() -> None:
    """Import torchvision, and not what it need not have."""
    with compiler_deferred():
        import torchvision  # noqa: F401


def _forget_half_imported() -> None:
    """Drop what the failed import left in `sys.modules`, so that the next one starts anew."""
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
