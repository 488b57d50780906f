"""`finetune evaluate`: the figures of a saved model, and never of photos it was trained on."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from finetune import load


def mirrored(photos: Path, folder: Path) -> Path:
    """Write photos that the run has not seen: mirror images of those that it has."""
    for path in sorted(photos.glob("*/*.png")):
        place = folder / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place)
    return folder


def in_parts(photos: Path, folder: Path) -> Path:
    """Copy photos into train, val and test in turn."""
    for number, path in enumerate(sorted(photos.glob("*/*.png"))):
        place = folder / ("train", "val", "test")[number % 3] / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    return folder


def test_the_photos_of_the_run_keep_its_parts(made: Any, call: Callable[..., Any]) -> None:
    document = json.loads(
        call("evaluate", str(made.folder), "--data", str(made.data), "--json").out
    )
    metrics = json.loads((made.folder / "metrics.json").read_text())
    assert document["splits"]["test"]["num_samples"] == 6
    assert document["splits"]["test"]["accuracy"] == metrics["splits"]["test"]["accuracy"]
    assert document["run"] == made.folder.name
    assert document["backbone"] == "test_vit"


def test_a_model_without_its_split_is_not_tested_on_its_own_photos(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    model = shutil.copytree(made.folder / "model", tmp_path / "model")
    answer = call("evaluate", str(model), "--data", str(made.data))
    assert answer.code == 3
    assert "figures from all of them would be no test" in answer.err
    assert "hint: name the run folder instead of its model" in answer.err


def test_other_photos_without_parts_are_taken_whole(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    data = mirrored(made.data, tmp_path / "photos")
    answer = call("evaluate", str(made.folder), "--data", str(data))
    assert answer.code == 0
    assert answer.out.startswith("test: 36 images\n  accuracy  ")
    assert "left out" not in answer.out


@pytest.mark.parametrize("as_csv", [False, True])
def test_the_photos_of_the_run_are_known_wherever_they_stand_now(
    made: Any, tmp_path: Path, call: Callable[..., Any], as_csv: bool
) -> None:
    data = source = shutil.copytree(made.data, tmp_path / "elsewhere" / "photos")
    Image.new("RGB", (24, 24), (9, 9, 200)).save(data / "blue" / "new.png")
    if as_csv:
        source = data / "list.csv"
        names = [path.relative_to(data).as_posix() for path in sorted(data.glob("*/*.png"))]
        rows = [f"{name},{name.partition('/')[0]}" for name in names]
        source.write_text("\n".join(["path,label", *rows, ""]))
    answer = call("evaluate", str(made.folder), "--data", str(source), "--json")
    part = json.loads(answer.out)["splits"]["test"]
    assert part["num_samples"] == 7  # the test part of the run, and the one that nobody has seen
    assert part["warnings"][0].startswith("30 photos have another part in the run, left out: ")


def test_figures_of_validation_are_called_no_test(made: Any, call: Callable[..., Any]) -> None:
    answer = call("evaluate", str(made.folder), "--data", str(made.data), "--split", "val")
    assert answer.out.startswith("val: 6 images (used for selection: no test)\n")


def test_out_receives_the_tables_and_is_not_overwritten(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "figures"
    arguments = ("evaluate", str(made.folder), "--data", str(made.data), "--out", str(out))
    assert call(*arguments).code == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "confusion_matrix.csv", "metrics.json", "per_class.csv", "plots", "predictions.csv",
        "report.html", "slices.csv",
    ]  # fmt: skip
    again = call(*arguments)
    assert again.code == 1
    assert again.err == (
        f"error: {out} exists and is not empty; nothing is overwritten\n"
        "hint: choose another --out\n"
    )


def test_a_part_that_cannot_be_is_refused(made: Any, call: Callable[..., Any]) -> None:
    answer = call("evaluate", str(made.folder), "--data", str(made.data), "--split", "tset")
    assert answer.code == 2
    assert answer.err == (
        "error: --split tset is not one of train, val, test\nhint: --split test\n"
    )


def test_photos_of_no_known_class_are_refused(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    mirrored(made.data, tmp_path / "mirrored")
    (tmp_path / "photos").mkdir()
    (tmp_path / "mirrored" / "red").rename(tmp_path / "photos" / "purple")
    answer = call("evaluate", str(made.folder), "--data", str(tmp_path / "photos"))
    assert answer.code == 3
    assert "hint: the model knows blue, green, red\n" in answer.err


def test_a_csv_gives_figures_by_size_by_look_and_by_its_further_columns(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    data = mirrored(made.data, tmp_path / "photos")
    rows = [
        f"{file.relative_to(data).as_posix()},{file.parent.name},{'old' if row % 2 else 'new'}"
        for row, file in enumerate(sorted(data.rglob("*.png")))
    ]
    (data / "photos.csv").write_text("\n".join(["path,label,camera", *rows, ""]))
    out = tmp_path / "figures"
    arguments = ("evaluate", str(made.folder), "--data", str(data / "photos.csv"))
    answer = call(*arguments, "--json", "--out", str(out))
    slices = json.loads(answer.out)["splits"]["test"]["slices"]
    # The photos are of one size, which parts nothing.
    assert [(one["by"], one["num_samples"]) for one in slices] == [
        *[("brightness", 9)] * 4, *[("sharpness", 9)] * 4, *[("column camera", 18)] * 2,
    ]  # fmt: skip
    assert all(one["is_small"] for one in slices)
    lines = (out / "slices.csv").read_text().splitlines()
    assert lines[0] == (
        "split,by,slice,low,high,num_samples,accuracy,accuracy_low,accuracy_high,rest_accuracy,"
        "is_small,p_value,stands_out"
    )
    assert lines[-1].startswith("test,column camera,old,,,18,")


def test_a_folder_with_some_known_classes_and_some_others_is_scored_by_the_known(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    strangers, data = mirrored(made.data, tmp_path / "mirrored"), tmp_path / "photos"
    for name, source in (("red", "red"), ("Blue", "blue"), ("purple", "green")):
        shutil.copytree(strangers / source, data / name)
    (data / "read me.png").write_bytes(b"x")
    answer = call("evaluate", str(made.folder), "--data", str(data), "--json")
    figures = json.loads(answer.out)["splits"]["test"]
    assert figures["num_samples"] == 12
    assert figures["num_unlabelled"] == 24
    assert figures["per_class"]["blue"]["support"] == 0
    assert figures["warnings"][:2] == [
        "1 file stands outside the class folders, left out: read me.png",
        "2 classes are unknown to the model and not scored: Blue (12 images; is it blue?), "
        "purple (12 images)",
    ]
    assert "2 classes without an image: blue, green" in figures["warnings"]


def test_photos_that_came_went_and_moved_since_the_run_are_told(
    tiny_folder: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    data = tmp_path / "photos"
    for number, path in enumerate(sorted(tiny_folder.glob("*/*.png"))):
        part = "train" if number % 3 else "val"
        place = data / part / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    flags = ["--recipe", "probe", "--backbone", "test_vit", "--no-pretrained"]
    run = tmp_path / "run"
    assert call("run", "--data", str(data), "--out", str(run), *flags).code == 0
    answer = call("evaluate", str(run), "--data", str(data))
    assert "has no part 'test'; it has train, val" in answer.err
    assert "hint: --split val" in answer.err
    # A new test part: one photo that nobody has seen, and one that moved there from train.
    test = data / "test" / "blue"
    test.mkdir(parents=True)
    Image.new("RGB", (24, 24), (9, 9, 200)).save(test / "new.png")
    moved = next((data / "train" / "blue").iterdir())
    moved.rename(test / "moved.png")
    answer = call("evaluate", str(run), "--data", str(data), "--json")
    part = json.loads(answer.out)["splits"]["test"]
    assert part["num_samples"] == 1
    assert part["warnings"][:2] == [
        "1 photo has another part in the run, left out: test/blue/moved.png",
        f"1 photo of the run no longer found under that name: train/blue/{moved.name}",
    ]


def test_what_the_run_left_out_stays_out(
    tiny_folder: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    data = in_parts(tiny_folder, tmp_path / "photos")
    wrong = next((data / "test" / "blue").iterdir())
    (data / "test" / "blue" / "broken.png").write_bytes(b"no image")
    fixes = tmp_path / "fixes.csv"
    fixes.write_text(f"path,finding,action,reason\ntest/blue/{wrong.name},,exclude,wrong\n")
    flags = ["--recipe", "probe", "--backbone", "test_vit", "--no-pretrained"]
    run = tmp_path / "run"
    made = call("run", "--data", str(data), "--out", str(run), "--exclude", str(fixes), *flags)
    assert made.code == 0
    answer = call("evaluate", str(run), "--data", str(data), "--json")
    part = json.loads(answer.out)["splits"]["test"]
    assert (part["num_samples"], part["num_unreadable"]) == (11, 0)
    told = "2 photos that the run left out, left out here as well"
    assert part["warnings"][0] == told
    moved = data.rename(tmp_path / "moved")  # the same photos, by what they hold
    answer = call("evaluate", str(run), "--data", str(moved), "--json")
    part = json.loads(answer.out)["splits"]["test"]
    assert (part["num_samples"], part["num_unreadable"]) == (11, 0)
    assert told in part["warnings"]


def test_photos_that_took_one_anothers_names_are_known_by_their_content(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    folder = shutil.copytree(made.folder, tmp_path / "run")
    data = shutil.copytree(made.data, tmp_path / "photos")
    saved = folder / "model" / "finetune.json"
    saved.write_text(saved.read_text().replace(str(made.data), str(data)))
    with (folder / "split.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] == "blue"]
    test = next(data / row["path"] for row in rows if row["split"] == "test")
    train = next(data / row["path"] for row in rows if row["split"] == "train")
    test.rename(data / "aside")
    train.rename(test)
    (data / "aside").rename(train)
    answer = call("evaluate", str(folder), "--data", str(data), "--json")
    # The photo that now has the name of a test photo was trained on.
    part = json.loads(answer.out)["splits"]["test"]
    name = test.relative_to(data).as_posix()
    assert part["num_samples"] == 5
    assert f"1 photo has another part in the run, left out: {name}" in part["warnings"]


def test_what_the_run_left_out_says_nothing_of_photos_elsewhere(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    folder = shutil.copytree(made.folder, tmp_path / "run")
    row = {"event": "DataFound", "left_out": [{"name": "blue/blue_00.png", "reason": "truncated"}]}
    events = folder / "events.jsonl"
    line = json.dumps({**row, "note": "a\x85b\u2028c"}, ensure_ascii=False)
    events.write_text(f"{line}\n", encoding="utf-8")
    data = mirrored(made.data, tmp_path / "photos")
    answer = call("evaluate", str(folder), "--data", str(data), "--json")
    assert json.loads(answer.out)["splits"]["test"]["num_samples"] == 36


@pytest.mark.parametrize("moved", [False, True])
def test_copies_of_training_photos_are_told_as_the_run_told_them(
    tiny_folder: Path, tmp_path: Path, call: Callable[..., Any], moved: bool
) -> None:
    data = in_parts(tiny_folder, tmp_path / "photos")
    copied = next((data / "train" / "blue").iterdir())
    shutil.copy(copied, data / "test" / "blue" / "copy.png")
    flags = ["--recipe", "probe", "--backbone", "test_vit", "--no-pretrained"]
    run = tmp_path / "run"
    assert call("run", "--data", str(data), "--out", str(run), *flags).code == 0
    source = data.rename(tmp_path / "moved") if moved else data
    answer = call("evaluate", str(run), "--data", str(source), "--json")
    told = json.loads((run / "metrics.json").read_text())["splits"]["test"]["warnings"][0]
    assert told.startswith("1 of 13 test images is a byte-for-byte copy of training images")
    part = json.loads(answer.out)["splits"]["test"]
    assert (part["num_leaked"], part["num_near_leaked"]) == (1, None)
    assert part["warnings"][0] == told


def test_photos_in_groups_are_told_to_be_so(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    data = mirrored(made.data, tmp_path / "photos")
    names = [file.relative_to(data).as_posix() for file in sorted(data.rglob("*.png"))]
    for size, is_told in ((4, True), (1, False)):
        rows = [f"{name},{name.partition('/')[0]},{k // size}" for k, name in enumerate(names)]
        (data / "photos.csv").write_text("\n".join(["path,label,group", *rows, ""]))
        arguments = ("evaluate", str(made.folder), "--data", str(data / "photos.csv"), "--json")
        warnings = json.loads(call(*arguments).out)["splits"]["test"]["warnings"]
        told = [one for one in warnings if "groups" in one]
        assert bool(told) == is_told
    assert not told


def test_photos_that_the_run_validated_on_are_called_so_wherever_they_stand(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    with (made.folder / "split.csv").open(newline="") as file:
        names = [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]
    for name in names:
        place = tmp_path / "held_out" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.data / name, place)
    arguments = ("evaluate", str(made.folder), "--data", str(tmp_path / "held_out"))
    answer = call(*arguments)
    assert answer.code == 0
    assert answer.out.startswith(
        f"val: {len(names)} images (used for selection: no test)\n  accuracy  "
    )
    parts = json.loads(call(*arguments, "--json").out)["splits"]
    assert [name for name, part in parts.items() if part] == ["val"]
    assert load(made.folder).evaluate(tmp_path / "held_out").split == "val"


def test_a_model_is_known_by_its_run_however_it_is_named(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    elsewhere = shutil.copytree(made.data, tmp_path / "photos")
    monkeypatch.chdir(made.folder / "model")
    answer = call("evaluate", ".", "--data", str(elsewhere), "--json")
    assert json.loads(answer.out)["splits"]["test"]["num_samples"] == 6
