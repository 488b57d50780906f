"""Images that stand more than once: in train and in another part, or under two labels.

A copy is equal byte for byte. A near-duplicate shows the same picture in another file: at another
size or quality, mirrored or slightly cropped (`near.py`).
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from finetune.data.words import counted
from finetune.errors import join_names
from finetune.types import Index, Sample, Split

__all__ = [
    "Leaks",
    "are_leaked",
    "conflict_warnings",
    "count_leaks",
    "find_duplicates",
    "leak_warnings",
    "tell_leaks",
]

_MANY = 0.01  # of a part: copies can lift its accuracy by as much
_WORDS: dict[Split, str] = {"val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class Leaks:
    """Images of a part that were trained on.

    Attributes:
        num_copies: Whose bytes also stand in train.
        num_near: Of which a near-duplicate stands in train, but no copy; None where none was
            looked for.
    """

    num_copies: int
    num_near: int | None

    @property
    def total(self) -> int:
        """All of them, as far as is known."""
        return self.num_copies + (self.num_near or 0)


def count_leaks(index: Index, split: Split) -> Leaks:
    """Count the images of a part that also stand in the training part."""
    known = _known(index)
    kinds = [_leak_of(sample, *known) for sample in index.part(split)]
    return Leaks(kinds.count("copy"), kinds.count("near"))


def are_leaked(index: Index, split: Split) -> list[bool]:
    """Tell of each image of a part whether it also stands in the training part."""
    known = _known(index)
    return [_leak_of(sample, *known) is not None for sample in index.part(split)]


def leak_warnings(index: Index, split: Split) -> tuple[str, ...]:
    """Say how far the figures of a part can be trusted; nothing where nothing leaks."""
    return tell_leaks(count_leaks(index, split), len(index.part(split)), split)


def tell_leaks(leaks: Leaks, total: int, split: Split) -> tuple[str, ...]:
    """Say how far the figures of a part of so many images can be trusted, the leaks given."""
    word = _WORDS[split]
    leaked = leaks.total
    verdict = "slightly too good" if leaked < _MANY * total else "not to be trusted"
    kinds = (
        (leaks.num_copies, "is a byte-for-byte copy", "are byte-for-byte copies"),
        (leaks.num_near, "is a near-duplicate", "are near-duplicates"),
    )
    return tuple(
        f"{number} of {total} {word} images {one if number == 1 else several} of training images: "
        f"the {word} figures are {verdict}"
        for number, one, several in kinds
        if number
    )


def conflict_warnings(index: Index) -> tuple[str, ...]:
    """Say which images stand under more than one label; nothing where none does."""
    copies = find_duplicates(index)
    torn = [group for group in copies if _num_labels(group) > 1]
    known = {sample for group in torn for sample in group}
    pictures = find_duplicates(index, near=True)
    alike = [group for group in pictures if _num_labels(group) > 1 and not known.issuperset(group)]
    kinds = (
        (torn, " = ", counted(len(torn), "image", "stands/stand"), ""),
        (alike, " ~ ", counted(len(alike), "picture", "stands/stand"), " in files that differ"),
    )
    return tuple(
        f"{lead} under more than one label{tail}: "
        + join_names([mark.join(f"{one.name} ({one.label})" for one in group) for group in groups])
        for groups, mark, lead, tail in kinds
        if groups
    )


def find_duplicates(index: Index, *, near: bool = False) -> tuple[tuple[Sample, ...], ...]:
    """Group the samples whose files are equal byte for byte, or show one picture.

    Args:
        index: As `check_images` gives it.
        near: Also join files that differ but show one picture.

    Returns:
        Groups of two or more samples, each in the order of names; samples that were not checked
        are in none.
    """
    keyed = [((one.picture if near else one.digest), one) for one in index.samples]
    known = [(key, one) for key, one in keyed if key is not None]
    known.sort(key=lambda pair: (pair[0], pair[1].name))
    groups = (
        tuple(one for _, one in pairs) for _, pairs in groupby(known, key=lambda pair: pair[0])
    )
    return tuple(sorted((group for group in groups if len(group) > 1), key=lambda g: g[0].name))


def _known(index: Index) -> tuple[set[str | None], set[str | None]]:
    """Give the digests and the pictures of the training part."""
    train = index.part("train")
    digests = {sample.digest for sample in train}
    return digests - {None}, {sample.picture for sample in train} - {None}


def _leak_of(
    sample: Sample, digests: set[str | None], pictures: set[str | None]
) -> Literal["copy", "near"] | None:
    """Say how an image stands in the training part as well, if it does."""
    if sample.digest in digests:
        return "copy"
    return "near" if sample.picture in pictures else None


def _num_labels(group: tuple[Sample, ...]) -> int:
    """Count the labels of a group."""
    return len({sample.label for sample in group})
