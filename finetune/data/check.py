"""Read every image once before training: unreadable ones are named, duplicates are found.

Opening a file or its header is no check: both pass a JPEG that was cut in half. So each image is
decoded in full, its bytes are digested while the file is open, and a thumbnail is kept, by which
near-duplicates are found. Threads do it: Pillow decodes outside the interpreter's lock, threads
need no second import of anything, and they work in every script and notebook on every system.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from finetune.data.content import digest_of
from finetune.data.decode import (
    Header,
    UnreadableImageError,
    decode_with_header,
    open_image_file,
    quiet,
)
from finetune.data.groups import joined
from finetune.data.kept import KeptViews
from finetune.data.leaks import conflict_warnings
from finetune.data.near import find_near_duplicates
from finetune.data.thumbnail import make_thumbnail
from finetune.data.words import counted
from finetune.errors import DataError, join_names
from finetune.runtime.allocator import freed_memory_kept
from finetune.types import Index, LeftOut, Progress, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Examined", "NearDuplicates", "check_images", "examine_images"]

Look: TypeAlias = "Callable[[Sample], _Seen | UnreadableImageError]"

_MOST_AT_ONCE = 8  # images that one task of a thread looks at
_MOST_COMPARED = 100_000  # images; the time to compare grows by their square: there some minutes


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Two files that show one picture.

    Attributes:
        digests: Of the files, in order.
        likeness: How much the pictures agree, at most 1.
        is_mirrored: Whether one is the mirror image of the other.
    """

    digests: tuple[str, str]
    likeness: float
    is_mirrored: bool


@dataclass(frozen=True, slots=True)
class Examined:
    """Images that were all decoded.

    Attributes:
        index: Readable samples with digest, size and picture; the others are left out.
        damaged: Samples that cannot be read, each with the reason.
        headers: What each readable file says of its image, by name of the sample.
        near: Files that differ and show one picture; no two have equal bytes.
        is_compared: Whether near-duplicates were looked for: not among very many images.
    """

    index: Index
    damaged: tuple[tuple[Sample, str], ...]
    headers: Mapping[str, Header]
    near: tuple[NearDuplicates, ...]
    is_compared: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one readable file showed."""

    sample: Sample
    header: Header
    thumbnail: "NDArray[np.uint8] | None"


def check_images(
    index: Index,
    *,
    max_pixels: int,
    kept: KeptViews | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Index:
    """Decode every image of an index, digest its bytes, and find near-duplicates.

    Args:
        index: As `index_source` gives it.
        max_pixels: Images with more pixels are unreadable.
        kept: Keeps what evaluation sees of each; images are decoded to its channels, as RGB where
            it is None.
        workers: Threads that decode; 0 and 1 use none. The result does not depend on it.
        progress: Called with images done and images in all, in this thread.

    Returns:
        The index with digest, size and picture in every sample; unreadable ones moved to `left_out`
        with their reason; sentences on them and on contradictory labels among the warnings.

    Raises:
        DataError: No image of a class can be read.
    """
    found = examine_images(
        index, max_pixels=max_pixels, kept=kept, workers=workers, progress=progress
    )
    checked = found.index
    _refuse_lost_classes(checked.samples, found.damaged)
    warnings = (*checked.warnings, *_damage_warning(found.damaged, len(index.samples)))
    if not found.is_compared:
        warnings = (*warnings, _not_compared(len(index.samples)))
    return replace(checked, warnings=(*warnings, *conflict_warnings(checked)))


@freed_memory_kept()
def examine_images(
    index: Index,
    *,
    max_pixels: int,
    kept: KeptViews | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Examined:
    """Decode every image as `check_images` does, and tell all that was seen.

    Nothing is refused: an index without a readable image is examined, too.
    """
    seen: list[_Seen] = []
    damaged: list[tuple[Sample, str]] = []
    # Careful: filters of warnings belong to the process, so they are set once around all threads.
    is_compared = len(index.samples) <= _MOST_COMPARED
    look = partial(_look_at, max_pixels=max_pixels, kept=kept, is_compared=is_compared)
    with quiet(), closing(_look_at_all(index.samples, look, workers)) as results:
        for done, (sample, result) in enumerate(zip(index.samples, results, strict=True), start=1):
            if isinstance(result, UnreadableImageError):
                damaged.append((sample, result.message))
            else:
                seen.append(result)
            if progress is not None:
                progress(done, len(index.samples))
    near = _compare(seen, workers) if is_compared else ()
    groups = joined(pair.digests for pair in near)
    pictures = {digest: group[0] for group in groups for digest in group}
    samples = [replace(one.sample, picture=_picture_of(one.sample, pictures)) for one in seen]
    left_out = [LeftOut(sample.name, reason) for sample, reason in damaged]
    examined = replace(
        index,
        samples=tuple(samples),
        left_out=tuple(sorted((*index.left_out, *left_out), key=lambda item: item.name)),
    )
    headers = {one.sample.name: one.header for one in seen}
    return Examined(examined, tuple(damaged), headers, near, is_compared)


def _look_at_all(
    samples: tuple[Sample, ...], look: Look, workers: int
) -> "Generator[_Seen | UnreadableImageError, None, None]":
    """Look at samples in order, in threads where more than one is wanted."""
    if workers < 2:
        yield from map(look, samples)
        return
    # Some at a time where there are many: to hand over one tiny image costs as much as to read it.
    size = max(1, min(_MOST_AT_ONCE, len(samples) // (_MOST_AT_ONCE * 2 * workers)))
    starts = range(0, len(samples), size)
    pool = ThreadPoolExecutor(workers)
    try:
        for some in pool.map(lambda start: [*map(look, samples[start : start + size])], starts):
            yield from some
    finally:  # also where it is not read to its end
        pool.shutdown(cancel_futures=True)


def _look_at(
    sample: Sample, *, max_pixels: int, kept: KeptViews | None, is_compared: bool
) -> _Seen | UnreadableImageError:
    """Decode a sample's image and digest its file, or give the reason why that cannot be done."""
    channels = 3 if kept is None else kept.channels
    try:
        with open_image_file(sample.path) as file:
            image, header = decode_with_header(file, max_pixels=max_pixels, channels=channels)
            digest = digest_of(file)
    except UnreadableImageError as error:
        return error
    if kept is not None:
        kept.keep(digest, image)
    known = replace(sample, digest=digest, size_px=image.size)
    return _Seen(known, header, make_thumbnail(image) if is_compared else None)


def _compare(seen: Iterable[_Seen], workers: int) -> tuple[NearDuplicates, ...]:
    """Find near-duplicates among files that differ, in an order that follows from their content."""
    thumbnails = {
        str(one.sample.digest): one.thumbnail for one in seen if one.thumbnail is not None
    }
    digests = sorted(thumbnails)
    if len(digests) < 2:
        return ()
    stacked = np.stack([thumbnails[digest] for digest in digests])
    pairs = find_near_duplicates(stacked, workers=workers)
    return tuple(
        NearDuplicates((digests[pair.one], digests[pair.other]), pair.likeness, pair.is_mirrored)
        for pair in pairs
    )


def _picture_of(sample: Sample, pictures: Mapping[str, str]) -> str | None:
    """Name the picture that a sample shows: by its own digest where no other file shows it."""
    return None if sample.digest is None else pictures.get(sample.digest, sample.digest)


def _refuse_lost_classes(kept: Iterable[Sample], damaged: Iterable[tuple[Sample, str]]) -> None:
    """Raise where a class has no readable image."""
    lost = sorted({str(sample.label) for sample, _ in damaged} - {str(s.label) for s in kept})
    if not lost:
        return
    files = [f"{sample.name} ({reason})" for sample, reason in damaged if sample.label in lost]
    word = "class" if len(lost) == 1 else "classes"
    raise DataError(f"no image of {word} {join_names(lost)} can be read: {join_names(files)}")


def _damage_warning(damaged: tuple[tuple[Sample, str], ...], num_samples: int) -> tuple[str, ...]:
    """Say which files cannot be read, if any."""
    if not damaged:
        return ()
    files = [f"{sample.name} ({reason})" for sample, reason in damaged]
    num_found = f"{len(damaged)} of {counted(num_samples, 'image')}"
    return (f"{num_found} cannot be read, left out: {join_names(files)}",)


def _not_compared(num_images: int) -> str:
    """Say that near-duplicates were not looked for."""
    return (
        f"near-duplicates were not looked for: {num_images} images are more than {_MOST_COMPARED}; "
        "copies were found by their bytes alone"
    )
