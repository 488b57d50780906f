"""Groups of what pairs join, directly or through others, and what is held out together."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from finetune.data.words import counted
from finetune.types import Sample

__all__ = ["dependence_note", "joined", "unit_of"]

_MOSTLY_ALONE = 0.9  # of the images of a part: what belongs together then moves nothing

T = TypeVar("T", bound=Any)  # things that have an order


def joined(pairs: Iterable[tuple[T, T]]) -> tuple[tuple[T, ...], ...]:
    """Give groups in the order of their least members, each in order.

    >>> joined([(5, 1), (2, 3), (1, 4)])
    ((1, 4, 5), (2, 3))
    """
    groups: dict[T, set[T]] = {}
    for pair in pairs:
        other, one = sorted((groups.setdefault(item, {item}) for item in pair), key=len)
        if one is not other:
            one |= other
            groups |= dict.fromkeys(other, one)
    distinct = {id(group): group for group in groups.values()}
    return tuple(sorted(tuple(sorted(group)) for group in distinct.values()))


def unit_of(sample: Sample) -> str:
    """Name what is held out together: a group of the manifest, or files that show one picture."""
    return f"group {sample.group}" if sample.group else str(sample.picture)


def dependence_note(samples: Sequence[Sample]) -> str:
    """Say that images of a part belong together, where intervals of its figures mislead.

    Returns:
        Empty where nearly all images are by themselves.
    """
    units = {unit_of(one) if one.group or one.picture else one.name for one in samples}
    if len(units) > _MOSTLY_ALONE * len(samples):
        return ""
    images = counted(len(samples), "image", "is/are")
    return (
        f"{images} of {counted(len(units), 'group')}: intervals, slices and thresholds take images "
        "as independent, and promise too much"
    )
