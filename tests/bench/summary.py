"""From rows of runs to what a page shows: medians, spreads, and ratios within one round.

A ratio is taken between two runs of the same round and then its median over the rounds: what else
the machine did in a round strikes both. Pure functions of plain rows.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["fastest", "median_ratio", "summarise"]

Row = dict[str, Any]


def summarise(rows: Sequence[Row]) -> list[Row]:
    """Give one row for each set, job and contender, in the order in which they come.

    `loop_factor` and `wall_factor` say how many times less time it took than the fastest peer of
    the round; `loop_of_floor` and `wall_of_floor` how many times more than its fastest floor.
    """
    found = []
    for data, job in _distinct((row["data"], row["job"]) for row in rows):
        group = [row for row in rows if (row["data"], row["job"]) == (data, job)]
        for contender in _distinct(row["contender"] for row in group):
            found.append(_summary(group, contender))
    return found


def fastest(rows: Sequence[Row], kind: str, measure: str) -> list[Row]:
    """Give the fastest row of a kind in each round that has one: who it is may differ by round."""
    found: dict[Any, Row] = {}
    for row in rows:
        if row["kind"] != kind or row[measure] is None:
            continue
        best = found.setdefault(_round(row), row)
        if row[measure] < best[measure]:
            found[_round(row)] = row
    return list(found.values())


def median_ratio(above: Sequence[Row], below: Sequence[Row], measure: str) -> float | None:
    """Give the median over the rounds of one's measure over the other's in the same round."""
    by_round = {_round(row): row[measure] for row in below}
    ratios = [
        row[measure] / by_round[_round(row)]
        for row in above
        if row[measure] is not None and by_round.get(_round(row))
    ]
    return round(statistics.median(ratios), 3) if ratios else None


def _summary(group: Sequence[Row], contender: str) -> Row:
    """Sum up the runs of one contender in its group."""
    own = [row for row in group if row["contender"] == contender]
    best = [row["best_accuracy"] for row in own if row["best_accuracy"] is not None]
    drifts = [row["drift"] for row in own if row["drift"] is not None]
    factors = {
        f"{name}_factor": median_ratio(fastest(group, "peer", measure), own, measure)
        for name, measure in (("loop", "loop_seconds"), ("wall", "wall_seconds"))
    }
    floors = {
        f"{name}_of_floor": median_ratio(own, fastest(group, "floor", measure), measure)
        for name, measure in (("loop", "loop_seconds"), ("wall", "wall_seconds"))
    }
    return {
        **{name: own[0][name] for name in ("data", "job", "contender", "kind")},
        "rounds": len(own),
        **{
            name: _median(own, name)
            for name in ("wall_seconds", "loop_seconds", "cpu_seconds", "peak_memory_mib")
        },
        **factors,
        **floors,
        "accuracy": round(statistics.fmean(best), 4) if best else None,
        "accuracy_range": [round(min(best), 4), round(max(best), 4)] if best else None,
        "drift": max(drifts, default=None),
        "trained_parameters": own[0]["trained_parameters"],
        "num_photos": own[0]["num_photos"],
    }


def _round(row: Row) -> tuple[int, int]:
    """Name the round of a run."""
    return row["round"], row["seed"]


def _median(rows: Sequence[Row], measure: str) -> float | None:
    """Give the median of a measure where it is known."""
    values = [row[measure] for row in rows if row[measure] is not None]
    return round(statistics.median(values), 3) if values else None


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Keep the first of equal values, in order."""
    return list(dict.fromkeys(values))
