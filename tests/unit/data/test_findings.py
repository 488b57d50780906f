"""What the check finds in a folder, each kind of it and nothing else."""

import shutil

import pytest
from PIL import Image

from finetune.data.check import examine_images
from finetune.data.findings import KINDS, Finding, find_problems
from finetune.data.index import index_source, index_unlabelled

MANY = 10


@pytest.fixture
def folder(tmp_path, draw_scene):
    """Two classes of ten training and one test photo each, all different."""
    for number in range(2 * MANY + 2):
        part = "train" if number < 2 * MANY else "test"
        place = tmp_path / part / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        draw_scene(number).save(place / f"{number}.png")
    return tmp_path


def found(folder, *, index=None):
    return find_problems(examine_images(index or index_source(folder), max_pixels=10**8))


def test_nothing_is_found_where_nothing_is_wrong(folder):
    assert found(folder) == ()


def test_files_that_cannot_be_read_are_told_apart(folder):
    (folder / "train/a/0.png").write_bytes(b"")
    (folder / "train/b/1.png").write_bytes(b"no photo")
    scene = Image.open(folder / "train/a/2.png")
    scene.save(folder / "train/a/2.jpg")
    whole = (folder / "train/a/2.jpg").read_bytes()
    (folder / "train/a/2.png").unlink()
    (folder / "train/a/2.jpg").write_bytes(whole[: len(whole) // 2])
    for name in ("20.png", "21.png"):  # keep the classes large enough
        shutil.copy(folder / "train/a/4.png", folder / "train/a" / name)
    damaged = [one for one in found(folder) if one.kind in ("empty", "truncated", "unreadable")]
    assert [(one.kind, one.names) for one in damaged] == [
        ("empty", ("train/a/0.png",)),
        ("truncated", ("train/a/2.jpg",)),
        ("unreadable", ("train/b/1.png",)),
    ]
    assert damaged[2].detail == "not an image"


def test_a_copy_is_a_leak_a_conflict_or_a_duplicate(folder):
    shutil.copy(folder / "train/a/0.png", folder / "test/a/copy.png")
    shutil.copy(folder / "train/b/1.png", folder / "train/a/copy.png")
    shutil.copy(folder / "train/b/3.png", folder / "train/b/copy.png")
    assert found(folder) == (
        Finding(
            "leak",
            ("test/a/copy.png", "train/a/0.png"),
            "test/a/copy.png (a) = train/a/0.png (a)",
        ),
        Finding(
            "conflict",
            ("train/a/copy.png", "train/b/1.png"),
            "train/a/copy.png (a) = train/b/1.png (b)",
        ),
        Finding(
            "duplicate",
            ("train/b/3.png", "train/b/copy.png"),
            "train/b/3.png (b) = train/b/copy.png (b)",
        ),
    )


def test_a_near_duplicate_is_a_leak_a_conflict_or_a_duplicate(folder):
    for source, target in (("a/0", "test/a"), ("b/1", "train/a"), ("b/3", "train/b")):
        scene = Image.open(folder / f"train/{source}.png")
        scene.resize((60, 45)).save(folder / target / "small.png")
    scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "train/b/mirrored.png")
    kinds = {one.kind: one for one in found(folder)}
    assert set(kinds) == {"near_leak", "near_conflict", "near_duplicate"}
    assert kinds["near_leak"].names == ("test/a/small.png", "train/a/0.png")
    assert kinds["near_leak"].detail == "test/a/small.png (a) ~ train/a/0.png (a)"
    assert kinds["near_conflict"].names == ("train/a/small.png", "train/b/1.png")
    assert kinds["near_duplicate"].detail == (
        "train/b/3.png (b) ~ train/b/mirrored.png (b) ~ train/b/small.png (b); mirrored"
    )
    assert 0.9 < kinds["near_duplicate"].value <= 1


def test_a_near_duplicate_of_a_leak_is_one_of_its_own(folder):
    scene = folder / "train/a/0.png"
    shutil.copy(scene, folder / "test/a/copy.png")
    Image.open(scene).resize((60, 45)).save(folder / "test/a/small.png")
    kinds = [one.kind for one in found(folder)]
    assert kinds == ["leak", "near_leak"]


def test_without_parts_a_copy_is_no_leak(folder):
    shutil.copy(folder / "train/a/0.png", folder / "train/a/copy.png")
    assert [one.kind for one in found(folder / "train")] == ["duplicate"]


def test_small_classes_and_imbalance_are_found(folder):
    for path in sorted((folder / "train/b").iterdir())[1:]:
        path.unlink()
    assert found(folder) == (
        Finding("small_class", ("b",), "1 training image", 1),
        Finding("imbalance", ("a", "b"), "a has 10 images, b 1", 10.0),
    )


def test_odd_images_are_found(folder, draw_scene):
    place = folder / "train/a"
    draw_scene(90).resize((31, 40)).save(place / "tiny.png")
    draw_scene(91).resize((150, 60)).save(place / "wide.png")
    draw_scene(92).convert("CMYK").save(place / "inks.jpg")
    exif = Image.Exif()
    exif[0x0112] = 8
    draw_scene(93).save(place / "turned.jpg", exif=exif)
    assert found(folder) == (
        Finding("tiny_image", ("train/a/tiny.png",), "31 x 40 pixels", 31),
        Finding(
            "extreme_aspect",
            ("train/a/wide.png",),
            "150 x 60 pixels, of which a square crop loses 60%",
            0.6,
        ),
        Finding("odd_mode", ("train/a/inks.jpg",), "JPEG of mode CMYK: inks, converted to RGB"),
        Finding("turned", ("train/a/turned.jpg",), "JPEG, shown upright"),
    )


def test_huge_images_are_found(folder, monkeypatch):
    monkeypatch.setattr("finetune.data.findings._HUGE_PIXELS", 120 * 90 - 1)
    assert {one.kind for one in found(folder)} == {"huge_image"}


def test_hidden_and_foreign_files_are_found(folder):
    (folder / "train/a/.hidden.png").touch()
    (folder / "train/a/notes.txt").touch()
    (folder / "train/loose.png").touch()
    assert found(folder) == (
        Finding("hidden", ("train/a/.hidden.png",), "hidden"),
        Finding("foreign", ("train/a/notes.txt",), "no image by its ending .txt"),
        Finding("foreign", ("train/loose.png",), "outside a class folder"),
    )


def test_photos_without_classes_are_examined(folder):
    place = folder / "train/a"
    shutil.copy(place / "0.png", place / "copy.png")
    assert index_unlabelled(folder) is None
    index = index_unlabelled(place)
    assert index.classes == ()
    assert found(place, index=index) == (
        Finding("duplicate", ("0.png", "copy.png"), "0.png = copy.png"),
    )


def test_every_kind_says_what_it_is():
    assert all(kind.meaning and kind.level in ("warning", "note") for kind in KINDS.values())
    levels = [kind.level for kind in KINDS.values()]
    assert levels == sorted(levels, reverse=True)
