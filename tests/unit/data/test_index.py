"""Indexing: folders by class, folders by part and class, lists from Python."""

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finetune.data.index import index_pairs, index_source, require_trainable
from finetune.errors import DataError
from finetune.types import Index

LAYOUT = "give a folder with one folder a class, the same below train/, val/, test/, or a CSV"


@pytest.fixture
def make(tmp_path):
    """Write empty files into a folder `photos` and give it."""

    def write(*names: str) -> Path:
        root = tmp_path / "photos"
        root.mkdir(exist_ok=True)
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    return write


def parts(index: Index) -> dict[str, str | None]:
    return {sample.name: sample.split for sample in index.samples}


def error(call, *arguments: object) -> tuple[str, str | None]:
    with pytest.raises(DataError) as caught:
        call(*arguments)
    return caught.value.message, caught.value.hint


def test_a_flat_folder_has_its_folders_as_classes(make):
    root = make("bees/2.jpg", "ants/1.jpg", "ants/deep/er/3.jpg")
    index = index_source(str(root))
    assert [(s.name, s.label, s.split) for s in index.samples] == [
        ("ants/1.jpg", "ants", None),
        ("ants/deep/er/3.jpg", "ants", None),
        ("bees/2.jpg", "bees", None),
    ]
    assert index.classes == ("ants", "bees")
    assert index.samples[0].path == root / "ants" / "1.jpg"
    assert (index.root, index.left_out, index.warnings) == (root, (), ())


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation"])
def test_parts_are_found_by_any_of_their_names(make, val):
    index = index_source(make("Train/a/1.jpg", f"{val}/a/2.jpg", "TEST/b/3.jpg"))
    assert parts(index) == {
        "Train/a/1.jpg": "train",
        f"{val}/a/2.jpg": "val",
        "TEST/b/3.jpg": "test",
    }
    assert index.classes == ("a",)


def test_a_folder_called_train_that_holds_photos_is_a_class(make):
    assert index_source(make("bus/1.jpg", "train/2.jpg")).classes == ("bus", "train")


def test_a_source_with_a_test_part_alone_can_be_indexed(make):
    index = index_source(make("test/a/1.jpg", "test/b/1.jpg"))
    assert set(parts(index).values()) == {"test"}
    assert index.classes == ("a", "b")


def test_hidden_and_foreign_files_are_left_out_and_said(make):
    index = index_source(
        make("a/1.jpg", "a/notes.TXT", "a/.x.jpg", ".ipynb_checkpoints/1.jpg", "b/2.unknown")
    )
    assert [sample.name for sample in index.samples] == ["a/1.jpg", "b/2.unknown"]
    assert [(item.name, item.reason) for item in index.left_out] == [
        (".ipynb_checkpoints", "hidden"),
        ("a/.x.jpg", "hidden"),
        ("a/notes.TXT", "no image by its ending .TXT"),
    ]


def test_files_beside_the_classes_are_left_out_and_said(make):
    index = index_source(make("a/1.jpg", "b/1.jpg", "loose.jpg"))
    assert [item.name for item in index.left_out] == ["loose.jpg"]
    assert index.warnings == ("1 file stands outside the class folders, left out: loose.jpg",)


def test_files_beside_the_parts_are_left_out_and_said(make):
    index = index_source(make("train/a/1.jpg", "train/x.jpg", "y.jpg", "z/b/1.jpg"))
    assert [(item.name, item.reason) for item in index.left_out] == [
        ("train/x.jpg", "outside a class folder"),
        ("y.jpg", "outside a class folder"),
        ("z", "a folder beside the parts"),
    ]
    assert index.warnings == (
        "beside train these folders are left out: z",
        "2 files stand outside the class folders, left out: train/x.jpg, y.jpg",
    )


def test_a_test_folder_without_classes_is_left_out_and_said(make):
    index = index_source(make("train/a/1.jpg", "train/b/1.jpg", "test/1.jpg", "test/2.jpg"))
    assert set(parts(index).values()) == {"train"}
    assert index.warnings[0] == "test/ holds no class folders with images: it is left out"


def test_a_folder_without_images_is_no_class(make):
    index = index_source(make("a/1.jpg", "b/1.jpg", "c/readme.md"))
    assert index.classes == ("a", "b")
    assert index.warnings == ("1 folder holds no images, left out: c",)


def test_long_spaced_and_accented_names_are_kept(make):
    long = "x" * 246 + ".jpg"
    index = index_source(make(f"a b/{long}", "grün/ö ü.jpg"))
    assert [sample.name for sample in index.samples] == [f"a b/{long}", "grün/ö ü.jpg"]
    assert index.classes == ("a b", "grün")


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system composes names itself")
def test_classes_are_compared_in_composed_unicode(make):
    decomposed = unicodedata.normalize("NFD", "café")
    index = index_source(make(f"train/{decomposed}/1.jpg", "val/café/1.jpg"))
    assert {sample.label for sample in index.samples} == {"café"}


def test_a_source_that_does_not_exist_is_named(tmp_path):
    path = tmp_path / "absent"
    assert error(index_source, path) == (f"there is no folder or file {path}", LAYOUT)


def test_an_empty_folder_is_called_empty(tmp_path):
    assert error(index_source, tmp_path) == (f"{tmp_path} is empty", LAYOUT)


def test_a_folder_of_files_is_told_that_classes_are_folders(make):
    root = make("1.jpg", "2.jpg")
    assert error(index_source, root) == (f"{root} holds 2 files but no class folders", LAYOUT)


def test_class_folders_without_a_single_image_are_an_error(make):
    root = make("a/x.txt", "b/y.txt")
    assert error(index_source, root) == (f"{root} holds no images in class folders", LAYOUT)


def test_a_file_that_is_no_csv_is_refused(make):
    path = make("a/1.jpg") / "a" / "1.jpg"
    assert error(index_source, path) == (f"{path} is neither a folder nor a CSV", LAYOUT)


def test_two_folders_for_one_part_are_an_error(make):
    root = make("train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg")
    assert error(index_source, root)[0] == f"{root} has two folders for val: val and valid"


def test_one_class_is_not_enough_to_train(make):
    root = make("a/1.jpg")
    message = f"{root} has one class only: a; telling classes apart needs two"
    assert error(require_trainable, index_source(root)) == (message, LAYOUT)


def test_classes_one_folder_further_down_are_pointed_at(make):
    root = make("photos/a/1.jpg", "photos/b/1.jpg")
    hint = f"the classes may be in {root / 'photos'}: give that folder"
    assert error(require_trainable, index_source(root))[1] == hint


def test_a_source_without_a_training_part_cannot_train(make):
    root = make("test/a/1.jpg", "test/b/1.jpg")
    message = f"{root} has no training images"
    assert error(require_trainable, index_source(root)) == (message, LAYOUT)


@pytest.mark.parametrize("part", ["val", "test"])
def test_classes_that_train_lacks_are_named(make, part):
    root = make("train/a/1.jpg", "train/b/1.jpg", f"{part}/c/1.jpg", f"{part}/d/1.jpg")
    assert error(require_trainable, index_source(root)) == (
        f"{part} has classes that train lacks: c, d",
        "train has: a, b",
    )


def test_a_class_missing_from_val_is_no_matter(make):
    index = index_source(make("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"))
    require_trainable(index)
    assert index.classes == ("a", "b")


def test_pairs_from_python_share_the_deepest_folder(make):
    root = make("x/1.jpg", "x/y/2.jpg")
    index = index_pairs([root / "x" / "y" / "2.jpg", str(root / "x" / "1.jpg")], ["b", "a"])
    assert index.root == root / "x"
    assert [(s.name, s.label) for s in index.samples] == [("1.jpg", "a"), ("y/2.jpg", "b")]
    assert index.classes == ("a", "b")


def test_labels_of_any_type_count_by_their_text(make):
    root = make("1.jpg", "2.jpg")
    assert index_pairs([root / "1.jpg", root / "2.jpg"], np.array([7, 8])).classes == ("7", "8")


@pytest.mark.parametrize(
    ("paths", "labels", "expected"),
    [
        (["1.jpg"], [], "got 1 path but 0 labels"),
        ([], [], "there are no paths"),
        (["1.jpg", "2.jpg"], ["a", None], "1 path has no label: DIR/2.jpg"),
        (["1.jpg"], [float("nan")], "1 path has no label: DIR/1.jpg"),
        (["1.jpg", "3.jpg"], ["a", "b"], "1 path leads to no file: DIR/3.jpg"),
        (
            ["1.jpg", "1.jpg"],
            ["a", "b"],
            "the list of paths contradicts itself: 1.jpg (label a and b)",
        ),
    ],
)
def test_pairs_that_do_not_hold_together_are_refused(make, paths, labels, expected):
    root = make("1.jpg", "2.jpg")
    message, _ = error(index_pairs, [root / path for path in paths], labels)
    assert message.replace(str(root), "DIR") == expected


def test_a_path_given_twice_counts_once(make):
    root = make("1.jpg", "2.jpg")
    index = index_pairs([root / "1.jpg", root / "2.jpg", root / "1.jpg"], ["a", "b", "a"])
    assert len(index.samples) == 2
    assert index.warnings == ("the list of paths repeats a file in 1 row, counted once: 1.jpg",)


def test_paths_on_two_drives_are_refused(make, monkeypatch):
    def refuse(_: object) -> str:
        raise ValueError("Paths don't have the same drive")

    root = make("1.jpg")
    monkeypatch.setattr("os.path.commonpath", refuse)
    assert error(index_pairs, [root / "1.jpg"], ["a"])[0] == (
        "the paths stand on different drives; they must share a folder"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
class TestLinks:
    @pytest.fixture
    def root(self, make, tmp_path: Path) -> Path:
        root = make("a/1.jpg", "b/2.jpg")
        (tmp_path / "secret.jpg").touch()
        (tmp_path / "pool").mkdir()
        (tmp_path / "pool" / "3.jpg").touch()
        (root / "a" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
        (root / "a" / "in.jpg").symlink_to(root / "b" / "2.jpg")
        (root / "b" / "pool").symlink_to(tmp_path / "pool")
        return root

    def test_that_lead_out_of_the_folder_are_left_out_and_said(self, root: Path) -> None:
        index = index_source(root)
        assert [one.name for one in index.samples] == ["a/1.jpg", "a/in.jpg", "b/2.jpg"]
        assert [(one.name, one.reason) for one in index.left_out] == [
            ("a/out.jpg", "a link out of the data folder"),
            ("b/pool/3.jpg", "a link out of the data folder"),
        ]
        assert index.warnings == (
            f"2 photos are links out of {root}, left out: a/out.jpg, b/pool/3.jpg; "
            "finetune run --set data.follow_links=true takes them",
        )

    def test_are_followed_where_that_is_asked_for(self, root: Path) -> None:
        index = index_source(root, follow_links=True)
        assert len(index.samples) == 5
        assert index.warnings == ()

    def test_in_a_csv_lead_no_further(self, root: Path) -> None:
        (root / "photos.csv").write_text("path,label\na/1.jpg,a\nb/2.jpg,b\na/out.jpg,b\n")
        index = index_source(root / "photos.csv")
        assert [one.name for one in index.samples] == ["a/1.jpg", "b/2.jpg"]

    def test_of_a_folder_of_nothing_else_get_a_sentence(self, root: Path, tmp_path: Path) -> None:
        farm = tmp_path / "farm"
        for name in ("a", "b"):
            (farm / name).mkdir(parents=True)
            (farm / name / "1.jpg").symlink_to(tmp_path / "secret.jpg")
        message, hint = error(index_source, farm)
        assert message == f"2 photos are links out of {farm}, left out: a/1.jpg, b/1.jpg"
        assert hint == "finetune run --set data.follow_links=true takes them"


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, ""])
def test_whatever_stands_for_no_label_is_none(make, missing):
    root = make("1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"1 path has no label: .*2\.jpg"):
        index_pairs([root / "1.jpg", root / "2.jpg"], ["a", missing])


def test_a_csv_is_found_by_a_path_that_goes_up(make, monkeypatch):
    root = make("photos/1.jpg", "photos/2.jpg", "work/x.txt")
    (root / "photos/p.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    monkeypatch.chdir(root / "work")
    index = index_source("../photos/p.csv")
    assert index.root == root / "photos"
    assert [sample.name for sample in index.samples] == ["1.jpg", "2.jpg"]


@pytest.mark.skipif(sys.platform == "win32", reason="a home folder is named otherwise there")
def test_a_tilde_is_the_home_folder(make, monkeypatch):
    root = make("a/1.jpg", "b/2.jpg")
    monkeypatch.setenv("HOME", str(root.parent))
    assert index_source(f"~/{root.name}").root == root
