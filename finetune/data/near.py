"""Near-duplicates: one picture in files that differ.

Found are copies at another size or quality, mirrored, or slightly cropped; two photos of one scene
or of one pattern are told apart. There are three steps, each over many pairs at once:

1. The layout of a thumbnail is described by its lowest spatial frequencies, those of the discrete
   cosine transform, as perceptual hashes do (Zauner, "Implementation and benchmarking of perceptual
   image hash functions", 2010), not cut down to bits. Mirroring changes the sign of the odd
   horizontal frequencies alone, so one pair of products compares both ways. A crop is met halfway:
   windows of each thumbnail are compared with the whole of each other. All against all is a product
   of matrices, block by block; only thumbnails of like brightness meet.
2. Thumbnails of like layout are registered: shifted and stretched until one lies on the other. Of
   very many that look alike, as frames of a camera that stands still, each is registered with the
   most alike ones: enough to join them all, and not hours of work.
3. Then colours must agree, and no more may be left than the finest structure explains.

The answer depends on the pictures and not on their order.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from finetune.data.registration import compare, finest_structure, halved, luma, register
from finetune.data.thumbnail import SIDE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]
    Places = NDArray[np.intp]

__all__ = ["NearPair", "find_near_duplicates"]

# Chosen on the training part of `textures` and on scikit-learn's handwritten digits, none of which
# is a copy; docs/benchmarks/check.json has what is found among other photos.
_ALIKE = 0.75  # of layouts: the cosine of their descriptions
_MEANS = 32.0  # grey levels between the means of a channel: crops of a tenth moved them by 23
_ROUGHLY = 0.6  # concordance of colours at half the size; most registrations end there
_COLOURS = 0.85  # concordance of colours
_REMAINDER = 2.0  # of what registration leaves: 1.3 for 95 % of crops, 2.07 and more for digits
_PLAIN = 0.5  # grey level, deviation of the finest structure: below it there is none to compare
_NUM_FREQUENCIES = 7  # of each axis
_END = 0.04  # of a side: what a window lacks at one end
_COARSE_STEPS, _FINE_STEPS = 4, 3  # of registration; more found no more
_ROWS, _COLUMNS = 256, 2048  # of a block: its products take 4 MiB
_PAIRS = 128  # that are registered at once: their pictures fit a cache
_AT_ONCE = 4096  # thumbnails that are described at once: some 100 MiB
_MOST = 128  # pairs of a thumbnail that are registered: the most alike, where all look alike


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two thumbnails that show one picture.

    Attributes:
        one: Position of the first.
        other: Position of the second, larger than `one`.
        likeness: Concordance of their colours, at most 1.
        is_mirrored: Whether one is the mirror image of the other.
    """

    one: int
    other: int
    likeness: float
    is_mirrored: bool


@dataclass(frozen=True, slots=True)
class _Layouts:
    """What is compared of M thumbnails, in the order of their brightness.

    Attributes:
        positions: (M,) of the thumbnails; plain ones are left out.
        means: (M, 4) brightness, rising, and the mean of each channel.
        windows: (5, M, D) description of each window; the first is the whole.
    """

    positions: "Places"
    means: "Floats"
    windows: "Floats"


@dataclass(frozen=True, slots=True)
class _Candidates:
    """P pairs of like layout.

    Attributes:
        parts: (P,) thumbnails, of which a window is alike…
        wholes: (P,) …to the whole of these.
        windows: (P,) which window.
        is_mirrored: (P,) whether it is alike to the mirror image of the whole.
        alike: (P,) how much.
    """

    parts: "Places"
    wholes: "Places"
    windows: "Places"
    is_mirrored: "NDArray[np.bool_]"
    alike: "Floats"

    def chosen(self, places: "NDArray[np.bool_] | Places | slice") -> "_Candidates":
        """Give some of them."""
        return _Candidates(*(getattr(self, field.name)[places] for field in fields(self)))

    def with_more(self, others: "_Candidates") -> "_Candidates":
        """Give these and others."""
        names = [field.name for field in fields(self)]
        return _Candidates(
            *(np.concatenate([getattr(self, name), getattr(others, name)]) for name in names)
        )

    @classmethod
    def none(cls) -> "_Candidates":
        """Give no pair."""
        places = np.empty(0, dtype=np.intp)
        return cls(places, places, places, np.empty(0, dtype=bool), np.empty(0, dtype=np.float32))


def find_near_duplicates(
    thumbnails: "NDArray[np.uint8]", *, workers: int = 1
) -> tuple[NearPair, ...]:
    """Find all pairs of thumbnails that show one picture.

    Args:
        thumbnails: (N, 32, 32, 3), as `make_thumbnail` gives them.
        workers: Threads that compare; the result does not depend on it.

    Returns:
        Pairs in the order of their positions. A plain picture, without any structure, is in none.
    """
    # One thread for each product: they are small, and beside other work threads that wait for each
    # other took six times the processor's time.
    with threadpool_limits(1), ThreadPoolExecutor(max(1, workers)) as pool:
        layouts = _lay_out(thumbnails)
        search = partial(_search, thumbnails, layouts)
        found = [pair for pairs in pool.map(search, *_blocks(layouts)) for pair in pairs]
    return tuple(sorted(found, key=lambda pair: (pair.one, pair.other)))


def _lay_out(thumbnails: "NDArray[np.uint8]") -> _Layouts:
    """Describe thumbnails, some at a time, and order them by their brightness."""
    num, width = len(thumbnails), _NUM_FREQUENCIES**2 - 1
    windows = np.empty((len(_windows()), num, width), dtype=np.float32)
    means, structure = np.empty((num, 4), dtype=np.float32), np.empty(num, dtype=np.float32)
    for start in range(0, num, _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        pictures = thumbnails[some].astype(np.float32)
        brightness = luma(pictures)
        structure[some] = finest_structure(brightness).std((1, 2))
        means[some, 0], means[some, 1:] = brightness.mean((1, 2)), pictures.mean((1, 2))
        for number in range(len(windows)):
            windows[number, some] = _describe(brightness, number)
    kept = np.flatnonzero(structure > _PLAIN)
    order = kept[np.argsort(means[kept, 0], kind="stable")]
    return _Layouts(order, means[order], windows[:, order])


def _blocks(layouts: _Layouts) -> tuple[list[slice], list[list[slice]]]:
    """Cut all pairs of like brightness into blocks: rows, and the columns of each."""
    levels = layouts.means[:, 0]
    rows, columns = [], []
    for top in range(0, len(levels), _ROWS):
        bottom = min(top + _ROWS, len(levels))
        end = int(np.searchsorted(levels, levels[bottom - 1] + _MEANS, side="right"))
        rows.append(slice(top, bottom))
        lefts = range(top, end, _COLUMNS)
        columns.append([slice(left, min(left + _COLUMNS, end)) for left in lefts])
    return rows, columns


def _search(
    thumbnails: "NDArray[np.uint8]", layouts: _Layouts, rows: slice, columns: Sequence[slice]
) -> list[NearPair]:
    """Find the pairs of some rows."""
    means = layouts.means[:, 1:]
    found = _Candidates.none()
    for block in columns:
        more = _best_of_each(_alike(layouts, rows, block))
        near = np.abs(means[more.parts] - means[more.wholes]).max(1, initial=0) <= _MEANS
        found = _most_alike(found.with_more(more.chosen(near)))
    starts = range(0, len(found.alike), _PAIRS)
    some = (found.chosen(slice(start, start + _PAIRS)) for start in starts)
    return [pair for pairs in some for pair in _confirmed(thumbnails, layouts.positions, pairs)]


def _alike(layouts: _Layouts, rows: slice, columns: slice) -> _Candidates:
    """Compare windows of rows with whole columns, and windows of columns with whole rows."""
    num_even = _num_even()
    wholes = layouts.windows[0]
    found = []
    for number, windows in enumerate(layouts.windows):
        for part, whole in ((rows, columns), (columns, rows))[: 2 if number else 1]:
            even = windows[part, :num_even] @ wholes[whole, :num_even].T
            odd = windows[part, num_even:] @ wholes[whole, num_even:].T
            alike = np.abs(odd)
            alike += even
            at, to = np.nonzero(alike > _ALIKE)
            places = (at + part.start, to + whole.start, np.full(len(at), number))
            found.append((*places, odd[at, to] < 0, alike[at, to]))
    return _Candidates(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _best_of_each(candidates: _Candidates) -> _Candidates:
    """Keep of each pair the window that is most alike, and no thumbnail with itself."""
    low = np.minimum(candidates.parts, candidates.wholes)
    high = np.maximum(candidates.parts, candidates.wholes)
    order = np.lexsort((-candidates.alike, high, low))
    low, high = low[order], high[order]
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return candidates.chosen(order[is_first & (low != high)])


def _most_alike(candidates: _Candidates) -> _Candidates:
    """Keep of each darker thumbnail a bounded number of pairs, the most alike first."""
    low = np.minimum(candidates.parts, candidates.wholes)
    order = np.lexsort((-candidates.alike, low))
    starts = np.searchsorted(low[order], low[order])  # of the pairs of the same thumbnail
    return candidates.chosen(order[np.arange(len(order)) - starts < _MOST])


def _confirmed(
    thumbnails: "NDArray[np.uint8]", positions: "Places", pairs: _Candidates
) -> Iterator[NearPair]:
    """Register pairs, coarsely and then finely, and give those that agree."""
    parts, wholes, mirrored = positions[pairs.parts], positions[pairs.wholes], pairs.is_mirrored
    fixed, moving = (thumbnails[places].astype(np.float32) for places in (wholes, parts))
    fixed[mirrored] = fixed[mirrored, :, ::-1]
    small, small_moving = halved(fixed), halved(moving)
    motion = _motions()[pairs.windows]
    motion = register(luma(small), luma(small_moving), motion, steps=_COARSE_STEPS)
    left = np.flatnonzero(compare(small, small_moving, motion).colours > _ROUGHLY)
    if not len(left):
        return
    fixed, moving = fixed[left], moving[left]
    motion = register(luma(fixed), luma(moving), motion[left], steps=_FINE_STEPS)
    found = compare(fixed, moving, motion)
    for number in np.flatnonzero((found.colours > _COLOURS) & (found.remainder < _REMAINDER)):
        place = left[number]
        one, other = sorted((int(parts[place]), int(wholes[place])))
        yield NearPair(one, other, float(found.colours[number]), bool(mirrored[place]))


def _describe(brightness: "Floats", window: int) -> "Floats":
    """Describe a window of N thumbnails: (N, D), even horizontal frequencies before odd ones."""
    down, across = (_frequencies(*ends) for ends in _windows()[window])
    number = np.arange(_NUM_FREQUENCIES)
    # The spectrum of photos falls off with frequency; half of that is made up for.
    gain = ((number[:, None] ** 2 + number**2) ** 0.25).astype(np.float32)
    spectrum = (down @ brightness @ across.T * gain).transpose(0, 2, 1)
    ordered = np.concatenate([spectrum[:, 0::2], spectrum[:, 1::2]], axis=1)
    flat = ordered.reshape(len(brightness), -1)[:, 1:]  # without the mean
    description: Floats = flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)
    return description


def _num_even() -> int:
    """Count the even horizontal frequencies of a description."""
    return (_NUM_FREQUENCIES + 1) // 2 * _NUM_FREQUENCIES - 1


@cache
def _windows() -> tuple[tuple[tuple[float, float], tuple[float, float]], ...]:
    """Give the ends of windows along y and x, from 0 to 1: the whole, then towards each corner."""
    ends = ((0.0, 1 - _END), (_END, 1.0))
    return (((0.0, 1.0), (0.0, 1.0)), *((y, x) for y in ends for x in ends))


@cache
def _motions() -> "Floats":
    """Give the motion (5, 4) from the whole of a picture to each of its windows."""
    rows = [[high - low - 1, low + high - 1] for axes in _windows() for low, high in axes]
    return np.array(rows, dtype=np.float32).reshape(-1, 4)


@cache
def _frequencies(low: float, high: float) -> "Floats":
    """Give the cosine transform (frequencies, 32) of the part of an axis between low and high."""
    middles = (np.arange(SIDE) + 0.5) / SIDE
    waves = np.cos(np.pi * np.arange(_NUM_FREQUENCIES)[:, None] * middles)
    pixels = ((low + middles * (high - low)) * SIDE - 0.5).clip(0, SIDE - 1)
    sampling = np.maximum(0, 1 - np.abs(pixels[:, None] - np.arange(SIDE)))
    transform = waves / np.linalg.norm(waves, axis=1, keepdims=True) @ sampling
    return np.asarray(transform, dtype=np.float32)
