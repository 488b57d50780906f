"""Reading a photo in mid-run: what was looked at, or an error that names it."""

import os
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from finetune.data import reading
from finetune.data.check import check_images
from finetune.data.decode import decode
from finetune.data.index import index_source
from finetune.data.reading import LoadingError, read_sample
from finetune.types import Sample

LIMIT = 10_000
READ = partial(decode, max_pixels=LIMIT)


@pytest.fixture
def checked(tmp_path: Path) -> Sample:
    """A photo as the check leaves it, with its digest."""
    for name, colour in (("ant", "red"), ("bee", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (20, 24), colour).save(tmp_path / name / "0.bmp")
    return check_images(index_source(tmp_path), max_pixels=LIMIT).samples[0]


def test_what_was_looked_at_is_read(checked: Sample) -> None:
    assert read_sample(checked, READ).getpixel((0, 0)) == (255, 0, 0)


def test_a_photo_changed_in_place_with_the_same_size_and_time_is_refused(checked: Sample) -> None:
    before = checked.path.stat()
    Image.new("RGB", (20, 24), "blue").save(checked.path)
    os.utime(checked.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = checked.path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    with pytest.raises(LoadingError) as caught:
        read_sample(checked, READ)
    assert caught.value.message == f"{checked.path} has changed since the run began"
    assert "--resume" in str(caught.value.hint)


def test_a_photo_cut_short_is_unreadable_before_it_is_another(checked: Sample) -> None:
    checked.path.write_bytes(checked.path.read_bytes()[:-100])
    with pytest.raises(LoadingError, match="can no longer be read"):
        read_sample(checked, READ)


def test_a_photo_without_a_digest_is_what_it_is(checked: Sample) -> None:
    bare = Sample(path=checked.path, name=checked.name, label=checked.label)
    assert read_sample(bare, READ).size == (20, 24)


def test_an_error_in_a_worker_travels_in_a_note_of_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "get_worker_info", lambda: object())
    error = LoadingError("a: lost", hint="b")
    assert error.__notes__ == ['finetune-error: ["a: lost", "b"]']
    monkeypatch.undo()
    again = LoadingError(f"Caught LoadingError.\nOriginal a: lost\n{error.__notes__[0]}\n")
    assert (again.message, again.hint) == ("a: lost", "b")
