"""`finetune report`: the page of a run made anew, and what it says where it cannot."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_the_page_made_anew_is_that_of_the_run(made: Any, call: Callable[..., Any]) -> None:
    page = made.folder / "report.html"
    before = page.read_bytes()
    page.unlink()
    answer = call("report", str(made.folder))
    assert (answer.code, answer.out, answer.err) == (0, f"{page}\n", "")
    assert page.read_bytes() == before


def test_photos_that_are_gone_are_a_warning(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    run = shutil.copytree(made.folder, tmp_path / "run")
    recipe = (run / "recipe.yaml").read_text().replace(str(made.data), str(tmp_path / "gone"))
    (run / "recipe.yaml").write_text(recipe)
    answer = call("report", str(run))
    assert answer.code == 0
    assert answer.err.startswith("warning: 6 of 6 photos are shown by name only (no such file)")
    again = call("report", str(run), "--data", str(made.data))
    assert (again.code, again.err) == (0, "")


def test_what_is_no_run_is_refused(tmp_path: Path, call: Callable[..., Any]) -> None:
    answer = call("report", str(tmp_path))
    assert answer.code == 1
    assert answer.err == (
        f"error: {tmp_path} is no run folder: it has no metrics.json\n"
        "hint: name a folder that finetune run wrote\n"
    )


def test_what_a_check_found_is_shown_beside_the_run(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    run = shutil.copytree(made.folder, tmp_path / "run")
    photos = shutil.copytree(made.data, tmp_path / "photos")
    shutil.copy(photos / "red/red_00.png", photos / "blue/copy.png")
    findings = tmp_path / "findings.json"
    assert call("check", str(photos), "--out", str(findings)).code == 0
    assert call("report", str(run), "--check", str(findings)).code == 0
    page = (run / "report.html").read_text("utf-8")
    assert "<h4>Conflicting labels: 1</h4>" in page
    assert "<li>blue/copy.png (blue) = red/red_00.png (red)</li>" in page


def test_a_check_that_is_none_is_refused(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    (tmp_path / "findings.csv").write_text("path,finding,action,reason\n")
    answer = call("report", str(made.folder), "--check", str(tmp_path / "findings.csv"))
    assert answer.code == 3
    assert answer.err == (
        f"error: {tmp_path / 'findings.csv'} is no document of finetune check\n"
        "hint: finetune check DIR --out FILE.json writes one\n"
    )
