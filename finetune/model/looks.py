"""What images look like to a network: brightness and sharpness of the input itself.

They are measured on the batch that is predicted anyway, at the size and crop that the network sees,
so that a large and a small copy of one photo measure alike, and nothing is decoded twice.
"""

import torch

__all__ = ["measure_brightness", "measure_sharpness"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as in Pillow


def measure_brightness(images: torch.Tensor) -> torch.Tensor:
    """Give the mean luma, 0 to 255: (B,) of uint8 images (B, C, H, W)."""
    return _luma(images).mean(dim=(1, 2))


def measure_sharpness(images: torch.Tensor) -> torch.Tensor:
    """Give the variance of the Laplacian of the luma: (B,) of uint8 images (B, C, H, W).

    A common measure of focus (Pech-Pacheco and others, ICPR 2000): a blurred image has no fine
    structure, so its second derivatives hardly vary. 0 where a side has fewer than three pixels.
    """
    luma = _luma(images)
    if min(luma.shape[1:]) < 3:
        return luma.new_zeros(len(luma))
    beside = luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:] + luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1]
    laplacian = beside - 4 * luma[:, 1:-1, 1:-1]
    return laplacian.var(dim=(1, 2), correction=0)


def _luma(images: torch.Tensor) -> torch.Tensor:
    """Give the luma (B, H, W) in fp32; of other images than RGB the mean of the channels."""
    values = images.float()
    if images.shape[1] != len(_LUMA):
        return values.mean(dim=1)
    weights = torch.tensor(_LUMA, device=images.device)
    return torch.einsum("bchw,c->bhw", values, weights)
