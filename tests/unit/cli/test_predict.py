"""`finetune predict`: one row for every input, in the order given."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file that is no image."""
    path = tmp_path / "broken.jpg"
    path.write_text("no image")
    return path


@pytest.fixture
def photo(made: Any) -> Path:
    """A photo of red."""
    return Path(made.data) / "red" / "red_00.png"


def test_a_table_has_path_answer_and_probability(
    made: Any, photo: Path, call: Callable[..., Any]
) -> None:
    answer = call("predict", str(made.folder), str(photo))
    title, row = answer.out.splitlines()
    assert title.split() == ["path", "predicted", "probability", "ood"]
    path, predicted, probability, ood = row.split()
    assert (path, predicted) == (str(photo), "red")
    assert 0 < float(probability) <= 1
    assert float(ood) >= 0
    assert (answer.code, answer.err) == (0, "")


def test_a_photo_that_cannot_be_read_has_its_reason_and_the_others_are_predicted(
    made: Any, photo: Path, broken: Path, call: Callable[..., Any]
) -> None:
    missing = broken.with_name("missing.jpg")
    answer = call("predict", str(made.folder), str(broken), str(photo), str(missing), "--json")
    rows = json.loads(answer.out)
    assert answer.code == 0
    assert [row["path"] for row in rows] == [str(broken), str(photo), str(missing)]
    assert [row["predicted"] for row in rows] == [None, "red", None]
    assert [row["error"] for row in rows] == ["not an image", None, "no such file"]


def test_if_none_could_be_predicted_the_exit_code_is_3(
    made: Any, broken: Path, call: Callable[..., Any]
) -> None:
    answer = call("predict", str(made.folder), str(broken), "--json")
    assert answer.code == 3
    assert json.loads(answer.out)[0]["error"] == "not an image"
    assert answer.err == (
        "error: none of the 1 images could be read\nhint: the reason of each stands in its row\n"
    )


def test_the_table_shows_reasons_where_there_are_any(
    made: Any, photo: Path, broken: Path, call: Callable[..., Any]
) -> None:
    lines = call("predict", str(made.folder), str(broken), str(photo)).out.splitlines()
    assert lines[0].split() == ["path", "predicted", "probability", "ood", "error"]
    assert lines[1].split() == [str(broken), "-", "-", "-", "not", "an", "image"]
    assert lines[2].split()[:2] == [str(photo), "red"]


def test_a_folder_gives_its_files_in_order(made: Any, call: Callable[..., Any]) -> None:
    folder = Path(made.data) / "blue"
    rows = json.loads(call("predict", str(made.folder), str(folder), "--json").out)
    assert [row["path"] for row in rows] == [str(path) for path in sorted(folder.iterdir())]


def test_a_dash_reads_paths_from_stdin(
    made: Any, photo: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    other = photo.with_name("red_01.png")
    text = f"{other}\r\n\n{photo}\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    rows = json.loads(call("predict", str(made.folder), "-", "--json").out)
    assert [row["path"] for row in rows] == [str(other), str(photo)]


def test_csv_has_the_columns_of_the_contract(
    made: Any, photo: Path, broken: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "answers.csv"
    answer = call("predict", str(made.folder), str(photo), str(broken), "--out", str(out))
    assert (answer.out, answer.err) == ("", f"2 rows written to {out}\n")
    with out.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert list(first) == [
        "path", "predicted", "probability", "p_blue", "p_green", "p_red", "error", "ood",
    ]  # fmt: skip
    assert sum(float(first[f"p_{name}"]) for name in ("blue", "green", "red")) == pytest.approx(1)
    assert second["error"] == "not an image"


def test_json_lines_have_the_likeliest_classes(
    made: Any, photo: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "answers.jsonl"
    call("predict", str(made.folder / "model"), str(photo), "--out", str(out), "--top-k", "2")
    (row,) = map(json.loads, out.read_text(encoding="utf-8").splitlines())
    assert row["top_1"] == row["predicted"] == "red"
    assert row["top_1_probability"] >= row["top_2_probability"]
    assert "top_3" not in row


def test_bf16_rounds_probabilities_where_it_is_asked_for(
    made: Any, photo: Path, call: Callable[..., Any]
) -> None:
    command = ("predict", str(made.folder), str(photo), "--json")
    (exact,), (again,) = (json.loads(call(*command).out) for _ in range(2))
    (rounded,) = json.loads(call(*command, "--precision", "bf16").out)
    assert exact["p_red"] == again["p_red"] != rounded["p_red"]
    assert rounded["p_red"] == pytest.approx(exact["p_red"], abs=0.05)  # three digits a layer


def test_more_classes_than_there_are_gives_all(
    made: Any, photo: Path, call: Callable[..., Any]
) -> None:
    title = call("predict", str(made.folder), str(photo), "--top-k", "9").out.splitlines()[0]
    assert title.split() == [
        "path", "predicted", "probability", "2.", "probability", "3.", "probability", "ood",
    ]  # fmt: skip


def test_an_empty_folder_is_an_error(made: Any, tmp_path: Path, call: Callable[..., Any]) -> None:
    answer = call("predict", str(made.folder), str(tmp_path))
    assert answer.code == 3
    assert answer.err == (
        "error: there is no image to predict\nhint: name files, or a folder of images\n"
    )


def test_a_folder_that_is_no_model_is_refused(
    tmp_path: Path, photo: Path, call: Callable[..., Any]
) -> None:
    answer = call("predict", str(tmp_path / "none"), str(photo))
    assert answer.code == 6
    assert answer.err == (
        f"error: {tmp_path / 'none'} is no saved model: it does not exist\n"
        "hint: name a run folder, or its model/ folder\n"
    )


def test_names_from_stdin_may_have_any_bytes_but_the_end_of_a_line(
    made: Any, photo: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    text = f"{photo}\n".encode() + b"caf\xe9.png\nx\x0by\xe2\x80\xa8.png\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))
    rows = json.loads(call("predict", str(made.folder), "-", "--json").out)
    assert [row["path"] for row in rows] == [str(photo), "caf\udce9.png", "x\x0by\u2028.png"]


def test_the_folder_of_the_table_is_made(
    made: Any, photo: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "new" / "folder" / "answers.csv"
    assert call("predict", str(made.folder), str(photo), "--out", str(out)).code == 0
    assert out.is_file()


@pytest.mark.parametrize("command", [["predict", "x", "y"], ["check", "x"], ["compare", "x", "y"]])
@pytest.mark.parametrize("out", [".", "/", "answers.xlsx"])
def test_a_file_of_another_ending_is_a_sentence(
    call: Callable[..., Any], command: list[str], out: str
) -> None:
    answer = call(*command, "--out", out)
    assert answer.code == 2
    assert answer.err.startswith(f"error: --out {out} must end in .")
    assert "hint: --out " in answer.err


@pytest.mark.skipif(sys.platform == "win32" or not os.getuid(), reason="root may write anywhere")
def test_a_file_that_cannot_be_written_is_found_before_the_work(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    tmp_path.chmod(0o500)
    answer = call("predict", "no run", "x.png", "--out", str(tmp_path / "new" / "a.csv"))
    assert answer.err == f"error: cannot write in {tmp_path}\nhint: choose another --out\n"


def test_a_folder_or_a_file_in_place_of_a_folder_is_found_before_the_work(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    (tmp_path / "a.csv").mkdir()
    answer = call("predict", "no run", "x.png", "--out", str(tmp_path / "a.csv"))
    assert answer.err.startswith(f"error: {tmp_path / 'a.csv'} is a folder, not a file\n")
    (tmp_path / "b").touch()
    answer = call("predict", "no run", "x.png", "--out", str(tmp_path / "b" / "a.csv"))
    assert answer.err.startswith(f"error: cannot write in {tmp_path / 'b'}\n")
