"""`finetune demo`: both networks, their figures, and where everything is."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.slow
def test_the_demo_ends_with_the_figures_of_both_networks(
    tmp_path: Path, call: Callable[..., Any]
) -> None:
    folder = tmp_path / "example"
    answer = call("demo", str(folder))
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[1].endswith(" test images of digits that the starter never saw")
    assert lines[2].split() == ["network", "accuracy", "95", "%", "macro", "F1", "time"]
    assert lines[3].startswith("  fine-tuned from the starter  ")
    assert lines[4].startswith("  the same from scratch  ")
    assert f"model:  {folder / 'tuned' / 'model'}" in lines
    assert f"page:   {folder / 'tuned' / 'report.html'}" in lines
    assert (folder / "tuned" / "metrics.json").is_file()
    figures = {
        name: json.loads((folder / name / "metrics.json").read_text())["splits"]["test"]
        for name in ("tuned", "scratch")
    }
    shown = [float(re.findall(r"0[.]\d{3}|1[.]000", line)[0]) for line in lines[3:5]]
    assert shown == [round(figures[name]["accuracy"], 3) for name in ("tuned", "scratch")]
    predicted = call(*lines[-1].split()[2:], "--json")
    assert len(json.loads(predicted.out)) > 100


def test_ctrl_c_says_what_the_folder_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.demo.example.run", interrupt)
    answer = call("demo", str(tmp_path / "example"))
    assert answer.code == 130
    assert answer.err.splitlines()[-1] == "interrupted before anything was written"


def test_runs_and_photos_of_others_are_not_replaced(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    run = shutil.copytree(made.folder, tmp_path / "one" / "scratch")
    photos = shutil.copytree(made.data, tmp_path / "two" / "digits")
    for name, stranger in (
        ("one", f"{run} was trained on {made.data}"),
        ("two", f"{photos / 'blue' / 'blue_00.png'} is no digit"),
    ):
        answer = call("demo", str(tmp_path / name))
        assert answer.code == 1
        assert f"error: {stranger}: only an earlier example here is replaced\n" in answer.err
    assert (run / "metrics.json").is_file()
    assert len(list(photos.rglob("*.png"))) == 36
