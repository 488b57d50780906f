"""Read every image once before training: unreadable ones are named, copies are found.

Opening a file or its header is no check: both pass a JPEG that was cut in half. So each image is
decoded in full, and its bytes are digested while the file is open. Threads do it: Pillow decodes
outside the interpreter's lock, threads need no second import of anything, and they work in every
script and notebook on every system.
"""

import hashlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import BinaryIO, TypeAlias

from finetune.data.decode import UnreadableImageError, decode, open_image_file, quiet
from finetune.data.kept import KeptViews
from finetune.data.words import counted
from finetune.errors import DataError, join_names
from finetune.types import Index, LeftOut, Progress, Sample, Split

__all__ = ["check_images", "find_duplicates", "num_leaked"]

Check: TypeAlias = Callable[[Sample], Sample | UnreadableImageError]

_DIGEST_BYTES = 16  # 128 bits: no two of a billion files meet by chance
_BLOCK_BYTES = 1 << 20
_MANY = 0.01  # of a part: copies can lift its accuracy by as much


def check_images(
    index: Index,
    *,
    max_pixels: int,
    kept: KeptViews | None = None,
    workers: int = 0,
    progress: Progress | None = None,
) -> Index:
    """Decode every image of an index and digest its bytes.

    Args:
        index: As `index_source` gives it.
        max_pixels: Images with more pixels are unreadable.
        kept: Keeps what evaluation sees of each; images are decoded to its channels, as RGB where
            it is None.
        workers: Threads that decode; 0 and 1 use none. The result does not depend on it.
        progress: Called with images done and images in all, in this thread.

    Returns:
        The index with a digest and a size in every sample; unreadable ones moved to `left_out` with
        their reason; sentences on them and on copies among the warnings.

    Raises:
        DataError: No image of a class can be read.
    """
    readable: list[Sample] = []
    damaged: list[tuple[Sample, str]] = []
    # Careful: filters of warnings belong to the process, so they are set once around all threads.
    check = partial(_check_one, max_pixels=max_pixels, kept=kept)
    with quiet(), closing(_check_all(index.samples, check, workers)) as results:
        for done, (sample, result) in enumerate(zip(index.samples, results, strict=True), start=1):
            if isinstance(result, UnreadableImageError):
                damaged.append((sample, result.message))
            else:
                readable.append(result)
            if progress is not None:
                progress(done, len(index.samples))
    _refuse_lost_classes(readable, damaged)
    left_out = [LeftOut(sample.name, reason) for sample, reason in damaged]
    checked = replace(
        index,
        samples=tuple(readable),
        left_out=tuple(sorted((*index.left_out, *left_out), key=lambda item: item.name)),
    )
    warnings = (*index.warnings, *_damage_warning(damaged, len(index.samples)))
    return replace(checked, warnings=(*warnings, *_copy_warnings(checked)))


def find_duplicates(index: Index) -> tuple[tuple[Sample, ...], ...]:
    """Group the samples whose files are equal byte for byte.

    Returns:
        Groups of two or more samples, each in the order of names; samples without a digest are in
        none.
    """
    digested = [sample for sample in index.samples if sample.digest is not None]
    ordered = sorted(digested, key=lambda sample: (str(sample.digest), sample.name))
    groups = (tuple(group) for _, group in groupby(ordered, key=lambda sample: sample.digest))
    return tuple(sorted((group for group in groups if len(group) > 1), key=lambda g: g[0].name))


def num_leaked(index: Index, split: Split) -> int:
    """Count the images of a part whose bytes also stand in the training part."""
    trained = {sample.digest for sample in index.part("train")} - {None}
    return sum(sample.digest in trained for sample in index.part(split))


def _check_all(
    samples: tuple[Sample, ...], check: Check, workers: int
) -> Generator[Sample | UnreadableImageError, None, None]:
    """Check samples in order, in threads where more than one is wanted."""
    if workers < 2:
        yield from map(check, samples)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(check, samples)


def _check_one(
    sample: Sample, *, max_pixels: int, kept: KeptViews | None
) -> Sample | UnreadableImageError:
    """Give a sample whose image decodes its digest and size, or the reason why it does not."""
    channels = 3 if kept is None else kept.channels
    try:
        with open_image_file(sample.path) as file:
            image = decode(file, max_pixels=max_pixels, channels=channels)
            digest = _digest(file)
            if kept is not None:
                kept.keep(digest, image)
            return replace(sample, digest=digest, size_px=image.size)
    except UnreadableImageError as error:
        return error


def _digest(file: BinaryIO) -> str:
    """Digest a file from its start; it was just read, so it comes from memory."""
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    file.seek(0)
    while block := file.read(_BLOCK_BYTES):
        state.update(block)
    return state.hexdigest()


def _refuse_lost_classes(kept: list[Sample], damaged: list[tuple[Sample, str]]) -> None:
    """Raise where a class has no readable image."""
    lost = sorted({str(sample.label) for sample, _ in damaged} - {str(s.label) for s in kept})
    if not lost:
        return
    files = [f"{sample.name} ({reason})" for sample, reason in damaged if sample.label in lost]
    word = "class" if len(lost) == 1 else "classes"
    raise DataError(f"no image of {word} {join_names(lost)} can be read: {join_names(files)}")


def _damage_warning(damaged: list[tuple[Sample, str]], num_samples: int) -> tuple[str, ...]:
    """Say which files cannot be read, if any."""
    if not damaged:
        return ()
    files = [f"{sample.name} ({reason})" for sample, reason in damaged]
    num_found = f"{len(damaged)} of {counted(num_samples, 'image')}"
    return (f"{num_found} cannot be read, left out: {join_names(files)}",)


def _copy_warnings(index: Index) -> tuple[str, ...]:
    """Say which copies spoil figures: across parts, and under two labels."""
    warnings = []
    words: dict[Split, str] = {"val": "validation", "test": "test"}
    for split, word in words.items():
        leaked, total = num_leaked(index, split), len(index.part(split))
        if leaked:
            are = "is a byte-for-byte copy" if leaked == 1 else "are byte-for-byte copies"
            verdict = "slightly too good" if leaked < _MANY * total else "not to be trusted"
            warnings.append(
                f"{leaked} of {total} {word} images {are} of training images: "
                f"the {word} figures are {verdict}"
            )
    torn = [group for group in find_duplicates(index) if len({s.label for s in group}) > 1]
    if torn:
        pairs = [" = ".join(f"{s.name} ({s.label})" for s in group) for group in torn]
        images = counted(len(torn), "image", "stands/stand")
        warnings.append(f"{images} under more than one label: {join_names(pairs)}")
    return tuple(warnings)
