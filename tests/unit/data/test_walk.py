"""Walking folders: every visible file once, by sorted names."""

import os
import sys
from pathlib import Path

import pytest

from finetune.data.index import list_images
from finetune.data.walk import display_name, list_folder, walk_files
from finetune.errors import DataError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes of POSIX")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_files_come_from_all_depths_by_sorted_names(tmp_path):
    touch(tmp_path, "b.jpg", "a/z.jpg", "a/b/c.jpg")
    files, left_out = walk_files(tmp_path, root=tmp_path)
    assert names(files, tmp_path) == ["a/b/c.jpg", "a/z.jpg", "b.jpg"]
    assert left_out == []


def test_hidden_things_and_what_systems_leave_are_left_out_by_name(tmp_path):
    touch(tmp_path, "a.jpg", ".b.jpg", ".ipynb_checkpoints/c.jpg", "d/Thumbs.db", "__MACOSX/e.jpg")
    files, left_out = walk_files(tmp_path, root=tmp_path)
    assert names(files, tmp_path) == ["a.jpg"]
    assert {item.name: item.reason for item in left_out} == {
        ".b.jpg": "hidden",
        ".ipynb_checkpoints": "hidden",
        "__MACOSX": "left by the operating system",
        "d/Thumbs.db": "left by the operating system",
    }


@POSIX
def test_links_are_followed_but_never_round(tmp_path):
    touch(tmp_path, "real/a.jpg", "top/b.jpg")
    (tmp_path / "top" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "top" / "loop").symlink_to(tmp_path / "top")
    files, left_out = walk_files(tmp_path / "top", root=tmp_path)
    assert names(files, tmp_path) == ["top/b.jpg", "top/linked/a.jpg"]
    assert [(item.name, item.reason) for item in left_out] == [
        ("top/loop", "a link back to a folder above it")
    ]


@POSIX
def test_a_link_to_nothing_and_a_pipe_are_left_out(tmp_path):
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "absent.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    _, left_out = walk_files(tmp_path, root=tmp_path)
    assert {item.name: item.reason for item in left_out} == {
        "gone.jpg": "a link to nothing",
        "pipe.jpg": "not a regular file",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_a_name_that_no_table_can_hold_is_left_out(tmp_path):
    touch(tmp_path, os.fsdecode(b"caf\xe9.jpg"))
    files, left_out = walk_files(tmp_path, root=tmp_path)
    assert files == []
    assert [(item.name, item.reason) for item in left_out] == [
        ("caf\\udce9.jpg", "its name is not valid UTF-8; rename it")
    ]


def test_display_name_is_posix_and_printable(tmp_path):
    assert display_name(Path("a") / os.fsdecode(b"\xff.jpg")) == "a/\\udcff.jpg"


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot list the folder .*absent: no such file"):
        list_folder(tmp_path / "absent")


def test_list_images_keeps_files_as_they_are_named(tmp_path):
    touch(tmp_path, "b.jpg", ".hidden.jpg")
    given = [str(tmp_path / "b.jpg"), tmp_path / "absent.jpg", tmp_path / ".hidden.jpg"]
    given += ["a" * 300, "zero\0byte.jpg"]  # names that no file can have
    assert list_images(given) == [Path(path) for path in given]


def test_list_images_expands_folders_to_all_visible_files_by_name(tmp_path):
    touch(tmp_path, "f/b.txt", "f/a/c.jpg", "f/.h.jpg", "f/.i/d.jpg", "f/Thumbs.db")
    assert names(list_images([tmp_path / "f"]), tmp_path) == ["f/Thumbs.db", "f/a/c.jpg", "f/b.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_what_is_predicted_may_have_any_name(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    touch(tmp_path, f"f/{odd}.jpg", f"f/{odd}/a.jpg", "f/b.jpg")
    (tmp_path / "f" / f"{odd}-round").symlink_to(tmp_path / "f")
    found = list_images([tmp_path / "f"])
    assert set(names(found, tmp_path)) == {"f/b.jpg", f"f/{odd}.jpg", f"f/{odd}/a.jpg"}


@POSIX
def test_a_link_in_a_circle_costs_nothing_but_itself(tmp_path):
    touch(tmp_path, "a.jpg")
    for name in ("loop.jpg", ".loop"):
        (tmp_path / name).symlink_to(tmp_path / name)
    files, left_out = walk_files(tmp_path, root=tmp_path)
    assert names(files, tmp_path) == ["a.jpg"]
    assert {item.name: item.reason for item in left_out} == {
        ".loop": "hidden",
        "loop.jpg": "too many levels of symbolic links",
    }
    assert list_images([tmp_path]) == [tmp_path / "a.jpg"]


@POSIX
def test_the_icon_of_a_folder_on_macos_is_no_photo(tmp_path):
    touch(tmp_path, "a.jpg", "Icon\r")
    _, left_out = walk_files(tmp_path, root=tmp_path)
    assert [item.reason for item in left_out] == ["left by the operating system"]


def test_what_runs_and_models_hold_is_no_photo(tmp_path):
    run = ("runs/1/events.jsonl", "runs/1/recipe.yaml", "runs/1/plots/b.png")
    touch(tmp_path, "a.jpg", *run, "m/finetune.json", "m/config.json")
    touch(tmp_path, "figures/metrics.json", "figures/predictions.csv", "figures/plots/c.png")
    files, left_out = walk_files(tmp_path, root=tmp_path)
    assert names(files, tmp_path) == ["a.jpg"]
    assert {item.name for item in left_out} == {"figures", "m", "runs/1"}
    assert {item.reason for item in left_out} == {"the folder of a run or of a saved model"}
    assert len(list_images([tmp_path])) == 9  # who names a folder to predict gets what is in it


def test_a_class_with_a_log_of_its_own_is_a_class(tmp_path):
    touch(tmp_path, "cats/a.jpg", "cats/events.jsonl")
    assert names(walk_files(tmp_path, root=tmp_path)[0], tmp_path) == [
        "cats/a.jpg",
        "cats/events.jsonl",
    ]


def test_what_systems_keep_on_a_drive_is_left_out(tmp_path):
    kept = ("$RECYCLE.BIN", "System Volume Information", "lost+found")
    touch(tmp_path, "cats/a.jpg", *(f"{name}/b.jpg" for name in kept))
    listing = list_folder(tmp_path)
    assert names(list(listing.folders), tmp_path) == ["cats"]
    assert sorted(path.name for path, _ in listing.left_out) == sorted(kept)
