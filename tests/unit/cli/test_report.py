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
