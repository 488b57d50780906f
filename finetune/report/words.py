"""Figures as a person reads them: the same in the terminal and on the page."""

from __future__ import annotations

__all__ = [
    "as_percent",
    "between",
    "count",
    "duration",
    "points",
    "points_between",
    "short_count",
]

_MAX_DIGITS = 5  # float32 knows few shares between 99.99999 % and 100 %


def count(number: int) -> str:
    """Write a whole number with separators: 12,345."""
    return f"{number:,}"


def short_count(number: int) -> str:
    """Write a large number in three digits.

    >>> short_count(5_288_548), short_count(86_568_424), short_count(870), short_count(2 * 10**9)
    ('5.29M', '86.6M', '870', '2.00B')
    """
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            value = number / size
            return f"{value:.{max(0, 2 - (value >= 10) - (value >= 100))}f}{unit}"
    return str(number)


def duration(seconds: float) -> str:
    """Write a time as a person says it.

    >>> duration(3.2), duration(200), duration(4000)
    ('3.2 s', '3 min 20 s', '1 h 07 min')
    """
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def as_percent(share: float | None, digits: int = 1) -> str:
    """Write a share; a dash where it is undefined.

    Only what is all, or nothing, is called 100 % or 0 %: nearly all gets more digits.

    >>> as_percent(0.8333), as_percent(1.0), as_percent(0.99999), as_percent(1e-6)
    ('83.3 %', '100 %', '99.999 %', '< 0.1 %')
    """
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    text = f"{100 * share:.{digits}f}"
    if float(text) == 0.0:
        return f"< {10**-digits} %"
    if float(text) == 100.0 and digits < _MAX_DIGITS:
        return as_percent(share, digits + 1)
    return f"{text} %"


def between(interval: tuple[float, float] | None) -> str:
    """Write the ends of an interval of a share.

    >>> between((0.725, 0.9166)), between(None)
    ('72.5 to 91.7 %', '-')
    """
    if interval is None:
        return "-"
    low, high = (as_percent(end) for end in interval)
    return f"{low.removesuffix(' %')} to {high}"


def points(difference: float) -> str:
    """Write a difference of shares in points, with its sign.

    >>> points(0.11), points(-0.0051)
    ('+11.0', '-0.5')
    """
    return f"{100 * difference:+.1f}"


def points_between(interval: tuple[float, float] | None) -> str:
    """Write the ends of an interval of a difference, in points.

    >>> points_between((-0.011, 0.027)), points_between(None)
    ('-1.1 to 2.7', '-')
    """
    if interval is None:
        return "-"
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
