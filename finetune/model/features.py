"""Features of images before the classifier, computed once for all that needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from finetune.model.fuse import fused

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune.model.network import Network
    from finetune.types import Progress

__all__ = ["extract_features"]


@torch.inference_mode()
def extract_features(
    network: Network,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    *,
    normalize: Callable[[torch.Tensor], torch.Tensor],
    progress: Progress | None = None,
    total: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Compute what enters the head's last layers in eval mode, fp32, on the network's device.

    Args:
        network: On its device; it is left in eval mode.
        batches: Of uint8 images (B, C, H, W), labels (B,) and positions (B,).
        normalize: From uint8 images to the network's input.
        progress: Called with images done and `total`.
        total: Images in all.

    Returns:
        Features (N, D) float32 and labels (N,) int64, in the order of the batches.
    """
    device = next(network.parameters()).device
    ready = fused(network.eval(), network.input_size)
    rows: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.int64]] = []
    for images, batch_labels, _ in batches:
        rows.append(ready.head_inputs(normalize(images.to(device))).float().cpu().numpy())
        labels.append(batch_labels.cpu().numpy())
        if progress:
            progress(sum(map(len, labels)), total)
    if not rows:
        return np.empty((0, 0), dtype=np.float32), np.empty(0, dtype=np.int64)
    return np.concatenate(rows), np.concatenate(labels)
