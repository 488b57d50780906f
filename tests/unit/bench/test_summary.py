"""What the speed measurement makes of its rows: medians, and ratios within one round."""

from typing import Any

from bench.summary import fastest, median_ratio, summarise


def row(
    contender: str, number: int, loop: float | None, wall: float, **more: Any
) -> dict[str, Any]:
    kinds = {"finetune": "finetune", "floor": "floor", "floor-bf16": "floor"}
    values = {
        "data": "birds", "job": "head", "contender": contender, "round": number, "seed": number,
        "kind": kinds.get(contender, "peer"), "wall_seconds": wall, "loop_seconds": loop,
        "cpu_seconds": 2.0, "peak_memory_mib": 100, "best_accuracy": 0.5, "drift": None,
        "trained_parameters": 7, "num_photos": 30,
    }  # fmt: skip
    return values | more


ROWS = [
    row("plain", 0, 100.0, 110.0),
    row("hf", 0, 80.0, 120.0),
    row("floor", 0, 1.0, 4.0),
    row("floor-bf16", 0, 2.0, 3.0),
    row("finetune", 0, 2.0, 10.0, best_accuracy=0.7, drift=0.0),
    row("plain", 1, 300.0, 330.0),
    row("hf", 1, 240.0, 360.0),
    row("floor", 1, 4.0, 16.0),
    row("floor-bf16", 1, 8.0, 12.0),
    row("finetune", 1, 4.0, 20.0, best_accuracy=0.8, drift=0.1),
]


def of(contender: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(one for one in rows if one["contender"] == contender)


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [one["contender"] for one in rows]


def test_the_fastest_of_a_kind_is_that_of_each_round() -> None:
    assert names(fastest(ROWS, "peer", "loop_seconds")) == ["hf", "hf"]
    assert names(fastest(ROWS, "peer", "wall_seconds")) == ["plain", "plain"]


def test_the_fastest_may_be_another_one_in_another_round() -> None:
    only_there = row("lightning", 1, 200.0, 500.0)
    assert names(fastest([*ROWS, only_there], "peer", "loop_seconds")) == ["hf", "lightning"]


def test_a_kind_without_figures_has_no_fastest() -> None:
    assert fastest([row("hf", 0, None, 1.0)], "peer", "loop_seconds") == []
    assert fastest(ROWS, "other", "loop_seconds") == []


def test_a_ratio_is_taken_within_a_round() -> None:
    above = [row("hf", 0, 10.0, 1.0), row("hf", 1, 1000.0, 1.0)]
    below = [row("plain", 0, 5.0, 1.0), row("plain", 1, 500.0, 1.0)]
    assert median_ratio(above, below, "loop_seconds") == 2.0


def test_rounds_that_only_one_of_two_has_give_no_ratio() -> None:
    assert (
        median_ratio([row("hf", 0, 1.0, 1.0)], [row("plain", 1, 1.0, 1.0)], "loop_seconds") is None
    )


def test_the_factors_compare_with_the_fastest_peer_of_the_round() -> None:
    found = of("finetune", summarise(ROWS))
    assert found["loop_factor"] == 50.0  # (80 / 2 + 240 / 4) / 2
    assert found["wall_factor"] == 13.75  # (110 / 10 + 330 / 20) / 2


def test_the_floor_is_the_fastest_floor_of_the_round() -> None:
    found = of("finetune", summarise(ROWS))
    assert found["loop_of_floor"] == 1.5  # (2 / 1 + 4 / 4) / 2
    assert found["wall_of_floor"] == 2.5  # (10 / 3 + 20 / 12) / 2


def test_seconds_are_medians_and_accuracy_has_its_range() -> None:
    found = of("finetune", summarise(ROWS))
    assert (found["rounds"], found["loop_seconds"], found["wall_seconds"]) == (2, 3.0, 15.0)
    assert (found["accuracy"], found["accuracy_range"]) == (0.75, [0.7, 0.8])


def test_the_drift_is_the_largest_seen() -> None:
    found = summarise(ROWS)
    assert of("finetune", found)["drift"] == 0.1
    assert of("plain", found)["drift"] is None


def test_sets_and_jobs_are_summed_up_apart() -> None:
    other = [one | {"job": "all"} for one in ROWS] + [one | {"data": "trash"} for one in ROWS]
    found = [(one["data"], one["job"]) for one in summarise(ROWS + other)]
    assert found == [("birds", "head")] * 5 + [("birds", "all")] * 5 + [("trash", "head")] * 5


def test_a_measurement_without_peers_has_no_factor() -> None:
    (found,) = summarise([row("finetune", 0, 1.0, 1.0)])
    assert (found["loop_factor"], found["wall_of_floor"]) == (None, None)
