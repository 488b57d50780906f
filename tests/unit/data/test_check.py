"""The full check before training: what cannot be read, and what is there twice."""

import hashlib
import shutil
import threading
import time
import warnings
from dataclasses import replace

import pytest
from PIL import Image

from finetune.components.preprocess import Preprocessing
from finetune.data.check import check_images, examine_images
from finetune.data.decode import Header, UnreadableImageError
from finetune.data.index import index_source
from finetune.data.kept import KeptViews
from finetune.errors import DataError

GREY = Preprocessing(input_size=(1, 16, 16))
FOUR = Preprocessing(input_size=(4, 16, 16))
LIMIT = 20_000


@pytest.fixture
def folder(tmp_path, write_photo):
    """Two classes of three photos each in train, two each in test."""
    for number, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        for position in range(3 if name.startswith("train") else 2):
            write_photo(tmp_path / name / f"{position}.png", number * 10 + position)
    return tmp_path


def checked(folder, **options):
    return check_images(index_source(folder), max_pixels=LIMIT, **options)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_sample_gets_the_digest_of_its_bytes(folder, workers):
    index = checked(folder, workers=workers)
    assert len(index.samples) == 10
    for sample in index.samples:
        expected = hashlib.blake2b(sample.path.read_bytes(), digest_size=16).hexdigest()
        assert sample.digest == expected
    assert index.warnings == ()


@pytest.mark.parametrize("workers", [0, 3])
def test_unreadable_files_are_left_out_with_their_reason(folder, workers):
    (folder / "train/a/0.png").write_bytes(b"")
    (folder / "test/b/1.png").write_bytes(b"no photo")
    index = checked(folder, workers=workers)
    assert [(item.name, item.reason) for item in index.left_out] == [
        ("test/b/1.png", "not an image"),
        ("train/a/0.png", "empty file"),
    ]
    assert len(index.samples) == 8
    assert index.warnings == (
        "2 of 10 images cannot be read, left out: "
        "test/b/1.png (not an image), train/a/0.png (empty file)",
    )


def test_what_was_left_out_before_stays_named(folder):
    (folder / "train/a/.hidden").touch()
    (folder / "train/a/0.png").write_bytes(b"")
    assert [item.name for item in checked(folder).left_out] == ["train/a/.hidden", "train/a/0.png"]


def test_an_image_beyond_the_limit_is_left_out(folder):
    index = check_images(index_source(folder / "train"), max_pixels=48)
    assert len(index.samples) == 6
    with pytest.raises(DataError, match=r"0\.png \(has 48 pixels, the limit is 47\)"):
        check_images(index_source(folder / "train"), max_pixels=47)


def test_a_class_without_a_readable_image_is_an_error(folder):
    for path in folder.glob("*/b/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        checked(folder)
    assert caught.value.message == (
        "no image of class b can be read: test/b/0.png (empty file), test/b/1.png (empty file), "
        "train/b/0.png (empty file), train/b/1.png (empty file), train/b/2.png (empty file)"
    )


def test_progress_is_told_in_order_in_the_calling_thread(folder):
    told = []
    checked(folder, workers=3, progress=lambda *step: told.append((*step, threading.get_ident())))
    assert told == [(done, 10, threading.get_ident()) for done in range(1, 11)]


def test_many_images_are_looked_at_some_at_a_time_with_the_same_result(folder, monkeypatch):
    (folder / "train/a/0.png").write_bytes(b"")
    index = index_source(folder)
    many = replace(
        index,
        samples=tuple(
            replace(sample, name=f"{number} {sample.name}")
            for number in range(9)
            for sample in index.samples
        ),
    )
    monkeypatch.setattr("finetune.data.check._MOST_AT_ONCE", 4)  # 90 images and 3 threads: 3 a task
    alone, shared = (examine_images(many, max_pixels=LIMIT, workers=some) for some in (0, 3))
    assert len(alone.damaged) == 9
    assert shared == alone


def test_who_stops_it_does_not_wait_for_what_has_not_begun(folder, monkeypatch):
    looked = []

    def look(sample, **_):
        time.sleep(0.005)
        looked.append(sample)
        return UnreadableImageError("it is only counted")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.data.check._look_at", look)
    index = index_source(folder)
    many = replace(index, samples=index.samples * 100)
    with pytest.raises(KeyboardInterrupt):
        examine_images(many, max_pixels=LIMIT, workers=2, progress=stop)
    assert len(looked) < 500


def test_filters_of_warnings_are_as_before(folder):
    before = list(warnings.filters)
    checked(folder, workers=3)
    assert warnings.filters == before


def test_an_interruption_ends_the_check_at_once(folder):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked(folder, workers=2, progress=interrupt)
    assert threading.active_count() == 1


def test_copies_under_two_labels_are_named(folder):
    shutil.copy(folder / "train/a/0.png", folder / "train/b/twin.png")
    assert checked(folder).warnings == (
        "1 image stands under more than one label: train/a/0.png (a) = train/b/twin.png (b)",
    )


@pytest.mark.parametrize("workers", [0, 3])
def test_copies_and_near_duplicates_share_a_picture(tmp_path, draw_scene, workers):
    scene = draw_scene(1)
    for name, image in (
        ("a/0.png", scene),
        ("a/1.png", draw_scene(2)),
        ("b/0.png", scene.resize((60, 45))),
        ("b/1.png", scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name)
    shutil.copy(tmp_path / "a/1.png", tmp_path / "a/2.png")
    index = checked(tmp_path, workers=workers)
    digests = {one.name: one.digest for one in index.samples}
    scenes = ("a/0.png", "b/0.png", "b/1.png")
    first = min(digests[name] for name in scenes)
    assert {one.name: one.picture for one in index.samples} == {
        **dict.fromkeys(scenes, first),
        **dict.fromkeys(("a/1.png", "a/2.png"), digests["a/1.png"]),
    }
    assert index.warnings == (
        "1 picture stands under more than one label in files that differ: "
        "a/0.png (a) ~ b/0.png (b) ~ b/1.png (b)",
    )


def test_near_duplicates_do_not_depend_on_names(tmp_path, draw_scene):
    scenes = [draw_scene(1), draw_scene(1).resize((60, 45)), draw_scene(2), draw_scene(3)]
    pictures = []
    for order in (scenes, scenes[::-1]):
        folder = tmp_path / str(len(pictures))
        for number, image in enumerate(order):
            place = folder / "ab"[number % 2] / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            image.save(place)
        pictures.append({one.digest: one.picture for one in checked(folder).samples})
    assert pictures[0] == pictures[1]
    assert len(set(pictures[0].values())) == 3


def test_very_many_images_are_not_compared_and_that_is_said(folder, monkeypatch):
    monkeypatch.setattr("finetune.data.check._MOST_COMPARED", 9)
    monkeypatch.setattr("finetune.data.check.make_thumbnail", None)  # so no memory goes to it
    index = checked(folder)
    assert all(one.picture == one.digest for one in index.samples)
    assert index.warnings == (
        "near-duplicates were not looked for: 10 images are more than 9; copies were found by "
        "their bytes alone",
    )


def test_what_files_say_of_themselves_is_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "a/0.jpg", exif=exif)
    Image.new("I;16", (8, 8)).save(tmp_path / "a/1.png")
    (tmp_path / "a/2.png").write_bytes(b"")
    found = examine_images(index_source(tmp_path), max_pixels=LIMIT)
    assert found.headers == {
        "a/0.jpg": Header("JPEG", "RGB", is_turned=True),
        "a/1.png": Header("PNG", "I;16", is_turned=False),
    }
    assert [(sample.name, reason) for sample, reason in found.damaged] == [
        ("a/2.png", "empty file")
    ]


def test_every_sample_gets_its_upright_size(tmp_path):
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (40, 20)).save(tmp_path / label / "1.jpg", exif=exif)
    index = check_images(index_source(tmp_path), max_pixels=10_000)
    assert [sample.size_px for sample in index.samples] == [(20, 40), (20, 40)]


def test_share_of_pixels_cut_off_is_a_mean_over_the_photos(tmp_path):
    from PIL import Image

    from finetune.components.preprocess import Preprocessing
    from finetune.data.prepare import mean_lost_fraction

    for label, size in (("a", (64, 64)), ("b", (128, 64))):
        (tmp_path / label).mkdir()
        Image.new("RGB", size).save(tmp_path / label / "1.png")
    index = check_images(index_source(tmp_path), max_pixels=10_000)
    whole = Preprocessing(input_size=(3, 64, 64), crop_pct=1.0)
    assert mean_lost_fraction(index, whole) == 0.25
    assert mean_lost_fraction(index_source(tmp_path), whole) == 0.0


@pytest.mark.parametrize("workers", [0, 3])
def test_images_of_other_bands_than_the_network_takes_are_left_out(tmp_path, workers):
    for name, mode in (("a/0.tif", "CMYK"), ("a/1.tif", "RGB"), ("b/0.tif", "RGBA")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new(mode, (8, 6)).save(tmp_path / name)
    index = checked(tmp_path, workers=workers, kept=KeptViews(FOUR))
    assert [sample.name for sample in index.samples] == ["a/0.tif", "b/0.tif"]
    assert index.warnings == (
        "1 of 3 images cannot be read, left out: a/1.tif (has 3 bands, the network takes 4)",
    )
    assert len(checked(tmp_path, workers=workers, kept=KeptViews(GREY)).samples) == 3
