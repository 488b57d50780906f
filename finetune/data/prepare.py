"""Data, ready for a run: decoded once in full, and split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.components.preprocess import Preprocessing
from finetune.data.check import check_images
from finetune.data.fixes import apply_fixes
from finetune.data.kept import KeptViews
from finetune.data.leaks import leak_warnings
from finetune.data.split import reuse_split, split_index
from finetune.types import DataFacts, Index, Progress

if TYPE_CHECKING:
    from finetune.recipe.schema import DataSection

__all__ = [
    "describe_data",
    "exclude_listed",
    "fingerprint",
    "mean_lost_fraction",
    "prepare_data",
]

_FEW = 100  # images; below, starting processes costs more than decoding


def exclude_listed(index: Index, section: DataSection) -> Index:
    """Leave out what the recipe's fix list excludes, where it has one.

    Raises:
        DataError: The list cannot be read, or leaves nothing.
    """
    return index if section.exclude is None else apply_fixes(index, Path(section.exclude))


def prepare_data(
    index: Index,
    section: DataSection,
    *,
    kept: KeptViews | None = None,
    seed: int = 0,
    num_cpus: int = 1,
    progress: Progress | None = None,
) -> Index:
    """Leave out what cannot be read, and split the rest.

    Args:
        index: What `index_source` found.
        section: Which parts to carve or which split to use again, and how large an image may be.
        kept: Keeps what evaluation sees of each image.
        seed: Seed of the split.
        num_cpus: Cores to decode with.
        progress: Called with images done and images in all.

    Raises:
        DataError: The data cannot be used as it is; the sentence names the files.
    """
    workers = num_cpus if len(index.samples) > _FEW else 0
    checked = check_images(
        index,
        max_pixels=section.max_pixels,
        kept=kept,
        workers=workers,
        progress=progress,
    )
    if section.split is not None:
        index = reuse_split(checked, Path(section.split))
    else:
        fractions = {"val_fraction": section.val_fraction, "test_fraction": section.test_fraction}
        index = split_index(checked, **fractions, seed=seed)
    leaks = (*leak_warnings(index, "val"), *leak_warnings(index, "test"))
    return replace(index, warnings=(*index.warnings, *leaks))


def describe_data(index: Index) -> DataFacts:
    """Say what the resolution of a recipe needs to know of split samples."""
    train = index.part("train")
    counts = dict.fromkeys(index.classes, 0)
    for sample in train:
        counts[str(sample.label)] += 1
    return DataFacts(len(train), len(index.part("val")), tuple(counts.values()))


def fingerprint(index: Index) -> str:
    """Give a hex digest of content, labels and splits, independent of names and order."""
    import hashlib

    rows = sorted(f"{sample.digest} {sample.split} {sample.label}" for sample in index.samples)
    return hashlib.blake2b("\n".join(rows).encode(), digest_size=16).hexdigest()


def mean_lost_fraction(index: Index, preprocessing: Preprocessing) -> float:
    """Give the mean share of an image's pixels that the input's geometry cuts off, in [0, 1)."""
    sizes = [sample.size_px for sample in index.samples if sample.size_px is not None]
    shares = [preprocessing.lost_fraction(width, height) for width, height in sizes]
    return sum(shares) / len(shares) if shares else 0.0
