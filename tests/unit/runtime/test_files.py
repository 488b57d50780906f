"""Files are written whole or not at all."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.runtime.files import append_line, make_folder, sweep, write_text, write_with


def test_text_is_written_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "grün\n")
    assert (tmp_path / "a.txt").read_bytes() == "grün\n".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(FinetuneError, match=r"cannot write .*a\.txt: the disk is full") as caught:
        write_with(tmp_path / "a.txt", fail)
    assert caught.value.hint == "free some space, or choose another --out"
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_full_device_is_one_sentence() -> None:
    with pytest.raises(FinetuneError, match="the disk is full"):
        write_with(Path("/dev/shm/never"), lambda path: _fill())


def _fill() -> None:
    with open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"x")


def test_lines_are_appended(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "grün")
    append_line(tmp_path / "log", "2")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "grün\n2\n"


@contextmanager
def files_no_longer_than(num_bytes: int) -> Iterator[None]:
    """Let the system write no more of a file, as on a disk that fills up in the middle of it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_line_that_does_not_fit_as_a_whole_is_not_there_at_all(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "first")
    with files_no_longer_than(10), pytest.raises(FinetuneError, match="the disk is full"):
        append_line(tmp_path / "log", "second")
    assert (tmp_path / "log").read_text(encoding="utf-8") == "first\n"


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FinetuneError, match="cannot write"):
        make_folder(tmp_path / "file" / "below")


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".0123456789ab").mkdir()
    (tmp_path / ".0123456789ab" / "half").touch()
    kept = {".hidden", ".0123456789xy", "0123456789ab", ".tmp", "model.json"}
    for name in (".0123456789ab.json", ".tmpA1b2C3", *kept):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    sweep(tmp_path / "absent")


@pytest.mark.parametrize("num_refused", [2, 100])
def test_on_windows_a_file_that_somebody_reads_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_refused: int
) -> None:
    replace, calls = os.replace, []

    def refuse(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) <= num_refused:
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(source, target)

    monkeypatch.setattr("finetune.runtime.files.sys.platform", "win32")
    monkeypatch.setattr("finetune.runtime.files.time.sleep", lambda seconds: None)
    monkeypatch.setattr("os.replace", refuse)
    if num_refused < 20:
        write_text(tmp_path / "a.txt", "new")
        assert (tmp_path / "a.txt").read_text() == "new"
        return
    with pytest.raises(FinetuneError, match=r"cannot write .*a\.txt: Access is denied"):
        write_text(tmp_path / "a.txt", "new")
    assert len(calls) == 21
    assert list(tmp_path.iterdir()) == []
