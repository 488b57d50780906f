"""Room on the disk and in memory, and sizes in words."""

from pathlib import Path

import pytest

from finetune.runtime.space import free_disk, free_memory, size_words


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b") > 1 << 20


def test_below_a_file_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert free_disk(tmp_path / "file" / "a") == 0


def test_memory_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert free_memory() > 1 << 20
    monkeypatch.setattr("finetune.runtime.space._GROUPS", ())
    monkeypatch.setattr("finetune.runtime.space._MEMINFO", tmp_path / "absent")
    assert free_memory() > 1 << 20


def test_what_the_kernel_calls_available_is_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in (
        ("meminfo", "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"),
        ("limit", "3000000\n"),
        ("used", "1000000\n"),
        ("none", "max\n"),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("finetune.runtime.space._MEMINFO", tmp_path / "meminfo")
    found = []
    for limit in ("none", "limit"):
        groups = ((tmp_path, limit, "used", "inactive_file"),)
        monkeypatch.setattr("finetune.runtime.space._GROUPS", groups)
        found.append(free_memory())
    assert found == [5000 * 1024, 2_000_000]
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 600000\n")  # of photos just read
    assert free_memory() == 2_600_000


def test_a_system_that_does_not_say_what_is_free_has_some(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("finetune.runtime.space._MEMINFO", tmp_path / "absent")
    monkeypatch.setattr("finetune.runtime.space._GROUPS", ())
    known = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4_000_000}  # as macOS

    def sysconf(name: str) -> int:
        if name not in known:
            raise ValueError("unrecognized configuration name")
        return known[name]

    monkeypatch.setattr("os.sysconf", sysconf)
    assert free_memory() == 1_000_000 * 4096
    known.clear()
    assert free_memory() == 2 << 30


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
