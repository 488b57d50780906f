"""What is wrong or odd in a data set: findings, from what the full check has seen.

A warning spoils a run or its figures: a person should act on it. A note is worth knowing. Nothing
is changed here, and nothing is ever deleted.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.data.check import Examined
from finetune.data.leaks import find_duplicates
from finetune.data.words import counted
from finetune.types import Index, Sample

__all__ = ["KINDS", "Finding", "Kind", "find_problems", "sort_findings"]

_FEW = 10  # training images of a class: five folds of them hold out two each
_UNEQUAL = 10.0  # times as many images in the largest class as in the smallest
_TINY_PX = 32  # of the shorter side; a network's usual input is seven times that
_HUGE_PIXELS = 50_000_000  # 150 MB in memory, and a second to decode
_EXTREME = 0.5  # of the pixels: a photo twice as wide as high
_USUAL_MODES = ("L", "RGB")
_MODES = {
    "1": "black and white",
    "CMYK": "inks, converted to RGB",
    "F": "floating-point values, brought to 8 bits",
    "I": "32 bits, brought to 8",
    "I;16": "16 bits, of which the upper eight count",
    "I;16B": "16 bits, of which the upper eight count",
    "LA": "grey with transparency, shown on white",
    "LAB": "CIE LAB, converted to sRGB",
    "P": "a palette",
    "PA": "a palette with transparency, shown on white",
    "RGBA": "transparency, shown on white",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding.

    Attributes:
        level: Whether a person should act, or know.
        meaning: What it is, in a few words.
        is_of_classes: Whether it is about classes, not about files.
    """

    level: Literal["warning", "note"]
    meaning: str
    is_of_classes: bool = False


# The gravest first; tables and documents follow this order.
KINDS: dict[str, Kind] = {
    "leak": Kind("warning", "one file in train and in another part"),
    "near_leak": Kind("warning", "one picture in train and in another part, in files that differ"),
    "conflict": Kind("warning", "one file under several labels"),
    "near_conflict": Kind("warning", "one picture under several labels, in files that differ"),
    "empty": Kind("warning", "a file without a byte"),
    "truncated": Kind("warning", "an image that is cut off"),
    "unreadable": Kind("warning", "a file that is no image, or damaged"),
    "small_class": Kind("warning", f"a class of fewer than {_FEW} training images", True),
    "imbalance": Kind("warning", f"a class {_UNEQUAL:g} times as large as another", True),
    "suspect_label": Kind("note", "a label that is probably wrong"),
    "duplicate": Kind("note", "one file several times in one part and class"),
    "near_duplicate": Kind("note", "one picture several times in one part and class"),
    "similar": Kind("note", "photos whose features are nearly equal"),
    "tiny_image": Kind("note", f"an image with a side below {_TINY_PX} pixels"),
    "huge_image": Kind("note", f"an image of more than {_HUGE_PIXELS // 10**6} million pixels"),
    "extreme_aspect": Kind("note", f"a square crop loses more than {_EXTREME:.0%} of the pixels"),
    "odd_mode": Kind("note", "pixels that are stored in another way than as RGB or grey"),
    "turned": Kind("note", "an orientation that has to be applied"),
    "hidden": Kind("note", "a hidden file or folder, left out"),
    "foreign": Kind("note", "a file or folder that is no photo of a class, left out"),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        kind: One of `KINDS`.
        names: Files that it is about, as tables name them; of classes their names.
        detail: What was seen, in a few words.
        value: A figure, where the kind has one: a likeness, a share, a count, a probability.
    """

    kind: str
    names: tuple[str, ...]
    detail: str
    value: float | None = None


def find_problems(examined: Examined) -> tuple[Finding, ...]:
    """Find everything that can be seen without a network, in the order of `sort_findings`."""
    index = examined.index
    found = [
        *_damaged(examined),
        *_duplicates(index),
        *_near_duplicates(examined),
        *_classes(index),
        *_odd_images(examined),
        *_left_out(examined),
    ]
    return sort_findings(found)


def sort_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Put findings in the order of their kinds; within a kind the order stays."""
    order = {kind: position for position, kind in enumerate(KINDS)}
    return tuple(sorted(findings, key=lambda finding: order[finding.kind]))


def _damaged(examined: Examined) -> Iterator[Finding]:
    """Name what cannot be read."""
    for sample, reason in examined.damaged:
        word = reason.partition(":")[0]
        kind = {"empty file": "empty", "truncated": "truncated"}.get(word, "unreadable")
        yield Finding(kind, (sample.name,), reason)


def _duplicates(index: Index) -> Iterator[Finding]:
    """Name files that are equal byte for byte."""
    for group in find_duplicates(index):
        kinds = [*_if("leak", _leaks(group)), *_if("conflict", len(_labels(group)) > 1)]
        for kind in kinds or ["duplicate"]:
            yield Finding(kind, _names(group), _described(group, " = "))


def _near_duplicates(examined: Examined) -> Iterator[Finding]:
    """Name files that differ and show one picture."""
    likeness: dict[str, list[float]] = {}
    mirrored: set[str] = set()
    for pair in examined.near:
        for digest in pair.digests:
            likeness.setdefault(digest, []).append(pair.likeness)
            mirrored |= {digest} if pair.is_mirrored else set()
    for group in find_duplicates(examined.index, near=True):
        digests = {str(sample.digest) for sample in group}
        if len(digests) == 1:
            continue
        kinds = [*_if("near_leak", _leaks_nearly(group)), *_if("near_conflict", _differ(group))]
        detail = _described(group, " ~ ") + ("; mirrored" if digests & mirrored else "")
        least = min(value for digest in digests for value in likeness[digest])
        for kind in kinds or ["near_duplicate"]:
            yield Finding(kind, _names(group), detail, round(least, 3))


def _classes(index: Index) -> Iterator[Finding]:
    """Name classes that are small, and the widest difference between two."""
    train = index.part("train") or index.samples
    counts = Counter(sample.label for sample in train if sample.label is not None)
    for name, count in sorted(counts.items()):
        if count < _FEW:
            yield Finding("small_class", (name,), counted(count, "training image"), count)
    if not counts:
        return
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    ratio = counts[largest] / counts[smallest]
    if ratio >= _UNEQUAL:
        detail = f"{largest} has {counts[largest]} images, {smallest} {counts[smallest]}"
        yield Finding("imbalance", (largest, smallest), detail, round(ratio, 1))


def _odd_images(examined: Examined) -> Iterator[Finding]:
    """Name images of odd size, shape or mode."""
    for sample in examined.index.samples:
        width, height = sample.size_px or (1, 1)
        short, long = sorted((width, height))
        header, names = examined.headers[sample.name], (sample.name,)
        lost = 1 - short / long
        if short < _TINY_PX:
            yield Finding("tiny_image", names, f"{width} x {height} pixels", short)
        if width * height > _HUGE_PIXELS:
            yield Finding("huge_image", names, f"{width} x {height} pixels", width * height)
        if lost > _EXTREME:
            detail = f"{width} x {height} pixels, of which a square crop loses {lost:.0%}"
            yield Finding("extreme_aspect", names, detail, round(lost, 3))
        if header.mode not in _USUAL_MODES:
            words = _MODES.get(header.mode, "converted to RGB")
            yield Finding("odd_mode", names, f"{header.format} of mode {header.mode}: {words}")
        if header.is_turned:
            yield Finding("turned", names, f"{header.format}, shown upright")


def _left_out(examined: Examined) -> Iterator[Finding]:
    """Name what stands in the folder and is no photo of a class."""
    damaged = {sample.name for sample, _ in examined.damaged}
    for item in examined.index.left_out:
        if item.name not in damaged:
            kind = "hidden" if item.reason == "hidden" else "foreign"
            yield Finding(kind, (item.name,), item.reason)


def _leaks(group: Sequence[Sample]) -> bool:
    """Whether a group stands in train and in another part."""
    parts = {sample.split for sample in group}
    return "train" in parts and len(parts) > 1


def _leaks_nearly(group: Sequence[Sample]) -> bool:
    """Whether an image outside of train shows a picture of train, but is no copy from there."""
    trained = {sample.digest for sample in group if sample.split == "train"}
    others = (sample for sample in group if sample.split not in ("train", None))
    return bool(trained) and any(sample.digest not in trained for sample in others)


def _differ(group: Sequence[Sample]) -> bool:
    """Whether two files of a group that are no copies have different labels."""
    by_digest: dict[str | None, set[str | None]] = {}
    for sample in group:
        by_digest.setdefault(sample.digest, set()).add(sample.label)
    return len({frozenset(labels) for labels in by_digest.values()}) > 1


def _labels(group: Sequence[Sample]) -> set[str | None]:
    """Give the labels of a group."""
    return {sample.label for sample in group}


def _names(group: Sequence[Sample]) -> tuple[str, ...]:
    """Give the names of a group."""
    return tuple(sample.name for sample in group)


def _described(group: Sequence[Sample], mark: str) -> str:
    """Say which files of which labels are one."""
    return mark.join(
        sample.name if sample.label is None else f"{sample.name} ({sample.label})"
        for sample in group
    )


def _if(kind: str, is_so: bool) -> tuple[str, ...]:
    """Give a kind where it is so."""
    return (kind,) if is_so else ()
