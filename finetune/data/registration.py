"""Lay one small picture on another, and tell how much they then agree.

A copy that was cropped shows the same picture shifted and stretched along each axis. Both are found
by the method of Lucas and Kanade ("An iterative image registration technique", IJCAI 1981): each
step solves the linear least squares of the brightness that is left against four motions.

Two measures tell whether the pictures then are one. Lin's concordance correlation (Biometrics 45,
1989) of the colours, which counts another brightness or contrast as a difference. And what is left
of the brightness, in units of the finest structure of the pictures, which is all that registration
and compression may leave: two photos of one kind of thing leave more, however alike they are. A
plain correlation does not tell: after registration a third of the handwritten digits that look
alike correlate as well as cropped copies of photos do.

Everything works on P pairs of square pictures of S pixels at once, in grey levels of 0 to 255.
Coordinates run from -1 to 1 over each axis, and a motion is (stretch and shift of y, stretch and
shift of x): what stands at x in the fixed picture stands at (1 + stretch) x + shift in the moving.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

__all__ = ["Agreement", "compare", "finest_structure", "halved", "luma", "register"]

_LONGEST_STEP = 0.1  # of half a side: some 1.6 pixels of 32, as far as a gradient reaches
_FARTHEST = 0.25  # of half a side: a crop of a quarter is no slight one
_DAMPING = 1.0  # squared grey levels, against pictures without any gradient
_NOISE = 0.25  # squared grey levels, a variance: what is below, compression may have made
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as in Pillow


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the pictures of P pairs are one, laid one on the other.

    Attributes:
        colours: (P,) concordance of all pixels and channels, at most 1.
        remainder: (P,) variance of the brightness that is left, over that of the finest structure.
    """

    colours: "Floats"
    remainder: "Floats"


def luma(pictures: "Floats") -> "Floats":
    """Give the brightness (N, S, S) of pictures (N, S, S, 3)."""
    brightness: Floats = pictures @ np.array(_LUMA, dtype=np.float32)
    return brightness


def halved(pictures: "Floats") -> "Floats":
    """Average squares of two by two pixels: (N, S, S, C) to (N, S / 2, S / 2, C)."""
    rows = pictures[:, 0::2] + pictures[:, 1::2]
    averaged: Floats = (rows[:, :, 0::2] + rows[:, :, 1::2]) * np.float32(0.25)
    return averaged


def finest_structure(pictures: "Floats") -> "Floats":
    """Keep what one pass of (1, 2, 1) / 4 over both axes takes from pictures (P, S, S)."""
    smoothing = _smoothing(pictures.shape[1])
    finest: Floats = pictures - smoothing @ pictures @ smoothing
    return finest


def register(fixed: "Floats", moving: "Floats", motion: "Floats", *, steps: int) -> "Floats":
    """Find the motion under which one picture lies on the other, by Gauss-Newton steps.

    Args:
        fixed: (P, S, S) brightness.
        moving: (P, S, S) brightness.
        motion: (P, 4), where to begin: a pixel or two from the answer.
        steps: How many.

    Returns:
        (P, 4) motions. Where pictures differ they mean nothing: `compare` tells.
    """
    num_pairs, size = fixed.shape[:2]
    axis = _axis(size)
    slopes = np.empty((num_pairs, 4, size, size), dtype=np.float32)
    for _ in range(steps):
        down, across, overlap = _sampling(motion, size)
        moved = down @ moving @ across
        slope_y, slope_x = np.gradient(moved, 2 / size, axis=(1, 2))
        slopes[:, 1] = slope_y * overlap / (1 + motion[:, 0, None, None])
        slopes[:, 3] = slope_x * overlap / (1 + motion[:, 2, None, None])
        slopes[:, 0] = slopes[:, 1] * axis[:, None]
        slopes[:, 2] = slopes[:, 3] * axis
        flat = slopes.reshape(num_pairs, 4, -1)
        curvature = flat @ flat.transpose(0, 2, 1) + _DAMPING * np.eye(4, dtype=np.float32)
        pull = flat @ (fixed - moved).reshape(num_pairs, -1, 1)
        step = np.linalg.solve(curvature, pull)[..., 0].clip(-_LONGEST_STEP, _LONGEST_STEP)
        motion = (motion + step).clip(-_FARTHEST, _FARTHEST)
    return motion


def compare(fixed: "Floats", moving: "Floats", motion: "Floats") -> Agreement:
    """Compare pictures where they overlap under a motion.

    Args:
        fixed: (P, S, S, 3).
        moving: (P, S, S, 3).
        motion: (P, 4), as `register` gives it.
    """
    size = fixed.shape[1]
    down, across, overlap = _sampling(motion, size)
    weights = overlap.astype(np.float32)[:, None]  # (P, 1, S, S)
    still, moving = np.moveaxis(fixed, 3, 1), np.moveaxis(moving, 3, 1)  # (P, 3, S, S)
    moved = down[:, None] @ moving @ across[:, None]
    grey, moving_grey = luma(fixed), luma(np.moveaxis(moving, 1, 3))
    left = grey - down @ moving_grey @ across
    finest = (finest_structure(grey), down @ finest_structure(moving_grey) @ across)
    fixed_structure, moved_structure = (_variance(part[:, None], weights) for part in finest)
    structure = (fixed_structure + moved_structure) / 2 + _NOISE
    return Agreement(
        colours=_concordance(still, moved, weights),
        remainder=_variance(left[:, None], weights) / structure,
    )


def _sampling(motion: "Floats", size: int) -> "tuple[Floats, Floats, NDArray[np.bool_]]":
    """Give what moves pictures by linear interpolation: down @ picture @ across; and where to."""
    places = ((1 + motion[:, 0::2, None]) * _axis(size) + motion[:, 1::2, None] + 1) / 2 * size
    is_inside = (places >= 0) & (places <= size)  # (P, 2, S)
    pixels = (places - 0.5).clip(0, size - 1)
    shares = np.maximum(0, 1 - np.abs(pixels[..., None] - np.arange(size, dtype=np.float32)))
    overlap = is_inside[:, 0, :, None] & is_inside[:, 1, None, :]
    return shares[:, 0], shares[:, 1].transpose(0, 2, 1), overlap


def _concordance(one: "Floats", other: "Floats", weights: "Floats") -> "Floats":
    """Lin's concordance of (P, C, S, S), over all channels, where weights (P, 1, S, S) are 1."""
    apart = _mean((one - other) ** 2, weights)
    spread = _variance(one, weights) + _variance(other, weights)
    offset = _mean(one - other, weights) ** 2
    return 1 - apart / (spread + offset + _NOISE)


def _variance(values: "Floats", weights: "Floats") -> "Floats":
    """Give the variance (P,) of (P, C, S, S) where weights (P, 1, S, S) are 1."""
    return _mean(values * values, weights) - _mean(values, weights) ** 2


def _mean(values: "Floats", weights: "Floats") -> "Floats":
    """Give the mean (P,) of (P, C, S, S) where weights (P, 1, S, S) are 1."""
    sums = np.einsum("pcyx,pdyx->p", values, weights)
    mean: Floats = sums / (values.shape[1] * weights.sum((1, 2, 3)))
    return mean


@cache
def _smoothing(size: int) -> "Floats":
    """Give the symmetric matrix (S, S) that smooths an axis by one pass of (1, 2, 1) / 4."""
    matrix = np.eye(size) / 2 + (np.eye(size, k=1) + np.eye(size, k=-1)) / 4
    matrix[0, 0] = matrix[-1, -1] = 0.75
    return matrix.astype(np.float32)


@cache
def _axis(size: int) -> "Floats":
    """Give the coordinates (S,) of the pixels of an axis."""
    return ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
