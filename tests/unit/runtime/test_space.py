"""Room on the disk and in memory, and sizes in words."""

import gc
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finetune.runtime.space import (
    cpu_share,
    free_disk,
    free_memory,
    in_pieces,
    is_lack_of_memory,
    size_words,
)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b") > 1 << 20


def test_below_a_file_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert free_disk(tmp_path / "file" / "a") == 0


def test_memory_is_free() -> None:
    assert free_memory() > 1 << 20


def test_what_the_kernel_calls_available_is_free_within_the_limit_of_a_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in (("limit", "3000000\n"), ("used", "1000000\n"), ("none", "max\n")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=5_120_000))
    found = []
    for limit in ("none", "limit"):
        groups = ((tmp_path, limit, "used", "inactive_file"),)
        monkeypatch.setattr("finetune.runtime.space._GROUPS", groups)
        found.append(free_memory())
    assert found == [5_120_000, 2_000_000]
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 600000\n")  # of photos just read
    assert free_memory() == 2_600_000


def test_a_drive_that_is_not_there_has_no_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for question in ("exists", "is_dir"):  # as of Z: where there is none
        monkeypatch.setattr(Path, question, lambda self: False)
    assert free_disk(tmp_path) == 0


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.50 GiB",
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_lack_of_memory_is_known_by_what_each_allocator_says(message: str) -> None:
    assert is_lack_of_memory(RuntimeError(message))
    assert not is_lack_of_memory(ValueError(message))


def test_what_does_not_fit_is_computed_in_halves() -> None:
    def compute(rows: slice) -> list[int]:
        if rows.stop - rows.start > 3:
            raise MemoryError
        return list(range(rows.start, rows.stop))

    assert in_pieces(compute, 3) == [[0, 1, 2]]
    assert in_pieces(compute, 10) == [[0, 1], [2, 3, 4], [5, 6], [7, 8, 9]]


@pytest.mark.parametrize("num_fitting", [4, 1])
def test_what_was_computed_from_is_let_go_before_the_next_batch(num_fitting: int) -> None:
    images = np.zeros((4, 3))  # of megabytes in a run: what waits for the collector adds up
    gone = weakref.ref(images)

    def compute(batch: np.ndarray, rows: slice) -> int:
        if rows.stop - rows.start > num_fitting:
            raise MemoryError
        return len(batch[rows])

    gc.disable()
    try:
        in_pieces(partial(compute, images), 4)
        del images
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("shapes differ")])
def test_one_row_that_does_not_fit_and_other_errors_are_raised(error: Exception) -> None:
    calls = []

    def compute(rows: slice) -> None:
        calls.append(rows)
        raise error

    with pytest.raises(type(error)):
        in_pieces(compute, 4)
    assert len(calls) == (3 if isinstance(error, MemoryError) else 1)


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (50 << 20, "50 MiB"),
        (5 << 40, "5.0 TiB"),
    ],
)
def test_a_size_is_written_as_a_person_says_it(num_bytes: int, words: str) -> None:
    assert size_words(num_bytes) == words


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_share_of_time_is_one_of_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: dict[str, str], cores: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    quotas = (
        (tmp_path / "cpu.max",),
        (tmp_path / "cpu.cfs_quota_us", tmp_path / "cpu.cfs_period_us"),
    )
    monkeypatch.setattr("finetune.runtime.space._CPU_QUOTAS", quotas)
    assert cpu_share() == cores
