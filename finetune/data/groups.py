"""Groups of what pairs join, directly or through others."""

from collections.abc import Iterable
from typing import Any, TypeVar

__all__ = ["joined"]

T = TypeVar("T", bound=Any)  # things that have an order


def joined(pairs: Iterable[tuple[T, T]]) -> tuple[tuple[T, ...], ...]:
    """Give groups in the order of their least members, each in order.

    >>> joined([(5, 1), (2, 3), (1, 4)])
    ((1, 4, 5), (2, 3))
    """
    groups: dict[T, set[T]] = {}
    for pair in pairs:
        one, other = (groups.setdefault(item, {item}) for item in pair)
        if one is not other:
            one |= other
            groups |= dict.fromkeys(other, one)
    distinct = {id(group): group for group in groups.values()}
    return tuple(sorted(tuple(sorted(group)) for group in distinct.values()))
