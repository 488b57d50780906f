"""Many rows stand in a file without a name, and are what they would be in memory."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from finetune.runtime import rows as module
from finetune.runtime.rows import collect_rows
from finetune.runtime.space import KEPT_FREE_BYTES

VALUES = np.random.default_rng(0).normal(size=(1000, 30)).astype(np.float32)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_IN_MEMORY_BYTES", 50_000)
    monkeypatch.setattr(module, "_AT_ONCE_BYTES", 1_000)
    return tmp_path / "cache"


def asked(values: NDArray[np.float32]) -> tuple[Callable[[slice], NDArray[np.float32]], list[int]]:
    """Give a reader of rows, and a list of how many it was asked for."""
    sizes: list[int] = []

    def read(some: slice) -> NDArray[np.float32]:
        sizes.append(some.stop - some.start)
        return values[some].copy()

    return read, sizes


def test_few_rows_are_read_at_once_and_many_in_pieces(cache: Path) -> None:
    for num_rows, expected in ((416, [416]), (417, [8] * 52 + [1])):
        read, sizes = asked(VALUES)
        found = collect_rows(read, num_rows, 30)
        np.testing.assert_array_equal(found, VALUES[:num_rows])
        assert sizes == expected


def test_many_rows_take_no_memory_and_leave_no_file(cache: Path) -> None:
    read, _ = asked(VALUES)
    tracemalloc.start()
    found = collect_rows(read, 1000, 30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < VALUES.nbytes / 4
    assert list(cache.iterdir()) == []
    np.testing.assert_array_equal(found, VALUES)  # the file has no name, and is there


def test_the_array_can_be_written_and_is_its_own(cache: Path) -> None:
    read, _ = asked(VALUES)
    one, other = collect_rows(read, 1000, 30), collect_rows(read, 1000, 30)
    one[5] = 0
    np.testing.assert_array_equal(other, VALUES)


def test_without_room_on_the_disk_memory_is_taken(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "free_disk", lambda _: KEPT_FREE_BYTES + VALUES.nbytes - 1)
    read, sizes = asked(VALUES)
    np.testing.assert_array_equal(collect_rows(read, 1000, 30), VALUES)
    assert sizes == [1000]


def test_a_cache_that_cannot_be_written_costs_memory_only(cache: Path) -> None:
    cache.write_text("a file in the way", encoding="utf-8")
    read, _ = asked(VALUES)
    np.testing.assert_array_equal(collect_rows(read, 1000, 30), VALUES)


def test_what_cannot_be_read_is_said(cache: Path) -> None:
    def read(some: slice) -> NDArray[np.float32]:
        raise OSError("the photos are gone")

    with pytest.raises(OSError, match="the photos are gone"):
        collect_rows(read, 1000, 30)
