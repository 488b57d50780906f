"""`finetune run`: flags become the recipe, events become lines, the end says what is next."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.cli import run as command
from finetune.cli.run import interruption
from finetune.recipe.load import load_recipe
from finetune.runtime.folder import claim

QUICK = ("--backbone", "test_vit", "--no-pretrained", "--recipe", "probe")


def test_a_run_ends_with_its_figures_its_path_and_what_is_next(made: Any) -> None:
    assert made.answer.code == 0
    lines = made.answer.out.splitlines()
    assert any(re.fullmatch(r"val: \d+ images \(used for selection: no test\)", x) for x in lines)
    assert any(re.fullmatch(r"test: \d+ images", line) for line in lines)
    assert "  class  precision  recall  95 %             F1  images" in lines
    assert [line.split()[0] for line in lines if line.startswith("  green")] == ["green"]
    assert lines[-4:] == [
        f"run:   {made.folder}",
        f"model: {made.folder / 'model'}",
        f"page:  {made.folder / 'report.html'}",
        f"next:  finetune predict {made.folder} photo.jpg",
    ]


def test_the_course_of_a_run_stands_on_stderr(made: Any) -> None:
    lines = made.answer.err.splitlines()
    assert lines[0] == f"test_vit from random weights on {made.data}, recipe probe"
    assert lines[1] == "36 images, 3 classes"
    assert "  all       24    6     6" in lines
    assert any(line.startswith("estimated time: ") for line in lines)
    assert f"run folder: {made.folder}" in lines
    assert "stage head: probe, logistic regression on frozen features" in lines
    assert any(line.startswith("      1/1 ") and line.endswith("best") for line in lines)
    assert lines[-1] == "weights kept: stage head, epoch 1"


def test_every_automatic_value_is_shown_with_its_reason(made: Any) -> None:
    lines = made.answer.err.splitlines()
    assert "  data.resize: crop (as the weights were evaluated)" in lines


def test_an_existing_run_is_not_overwritten(made: Any, call: Callable[..., Any]) -> None:
    answer = call("run", "--data", str(made.data), "--out", str(made.folder), *QUICK, "--quiet")
    assert answer.code == 1
    assert answer.err == (
        f"error: {made.folder} exists and is not empty; a run folder is never overwritten unasked\n"
        "hint: choose another --out, or add --overwrite\n"
    )


def test_json_is_the_metrics_of_the_run_and_nothing_else(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    answer = call("run", "--data", str(made.data), "--out", str(run), *QUICK, "--quiet", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert json.loads(answer.out) == json.loads((run / "metrics.json").read_text())


def test_a_dry_run_shows_the_recipe_and_writes_nothing(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call("run", "--data", str(made.data), *QUICK, "--dry-run")
    assert answer.code == 0
    assert list(tmp_path.iterdir()) == []
    assert answer.out.startswith("36 images, 3 classes\n")
    assert "\n  backbone: test_vit\n" in answer.out
    assert "\nstage head: probe, logistic regression on frozen features\n" in answer.out
    assert re.search(r"\nestimated time: .+\n$", answer.out)


def test_a_fix_list_and_an_earlier_split_are_honoured(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    split = (made.folder / "split.csv").read_text().splitlines()
    gone = next(row for row in split if ",train," in row).partition(",")[0]
    (tmp_path / "fixes.csv").write_text(f"path,action\n{gone},exclude\n")
    lists = ("--exclude", str(tmp_path / "fixes.csv"), "--split", str(made.folder / "split.csv"))
    answer = call("run", "--data", str(made.data), *QUICK, *lists, "--dry-run", "--json", "--quiet")
    document = json.loads(answer.out)
    assert document["recipe"]["data"]["exclude"] == str(tmp_path / "fixes.csv")
    assert document["recipe"]["data"]["split"] == str(made.folder / "split.csv")
    assert document["data"]["left_out"] == [{"name": gone, "reason": "excluded by fixes.csv"}]
    counts = {part: sum(row.values()) for part, row in document["data"]["counts"].items()}
    assert counts == {"train": 23, "val": 6, "test": 6}


def test_a_dry_run_as_json_holds_recipe_data_stages_and_estimate(
    made: Any, call: Callable[..., Any]
) -> None:
    answer = call("run", "--data", str(made.data), *QUICK, "--dry-run", "--json", "--quiet")
    document = json.loads(answer.out)
    assert document["recipe"]["model"]["backbone"] == "test_vit"
    assert document["data"]["counts"]["test"] == {"blue": 2, "green": 2, "red": 2}
    assert [stage["stage"] for stage in document["stages"]] == ["head"]
    assert document["estimate_seconds"] > 0


def recipe_of(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any], *flags: str) -> Any:
    """Give the recipe that `run` would run with these flags."""
    seen = []
    monkeypatch.setattr(command, "_show_plan", lambda recipe, display, *, json: seen.append(recipe))
    assert call("run", "--dry-run", *flags).code == 0
    return seen[0]


def test_every_flag_sets_its_value(
    monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    flags = {"--data": "photos", "--backbone": "resnet18", "--device": "cpu", "--seed": "7"}
    words = [word for pair in flags.items() for word in pair]
    recipe = recipe_of(monkeypatch, call, *words, "--no-pretrained", "--set", "stages.1.epochs=3")
    assert recipe.data.path == "photos"
    assert recipe.model.backbone == "resnet18"
    assert recipe.model.pretrained is False
    assert recipe.runtime.device == "cpu"
    assert recipe.seed == 7
    assert recipe.stages[1].epochs == 3


def test_a_flag_that_is_not_given_leaves_the_value_of_the_recipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[..., Any]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nseed: 5\nmodel: {backbone: resnet18, pretrained: false}\n"
        "data: {path: photos}\nruntime: {device: cpu}\n"
    )
    assert recipe_of(monkeypatch, call, "--recipe", str(file)) == load_recipe(file)


def test_weights_are_a_path(monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]) -> None:
    recipe = recipe_of(monkeypatch, call, "--data", "x", "--weights", "w.safetensors")
    assert recipe.model.weights == "w.safetensors"


WRONG = [
    (["--recipe", "probe"], 2, "no photos are named", "finetune run --data DIR"),
    (
        ["--data", "x", "--weights", "w", "--no-pretrained"],
        2,
        "--weights and --no-pretrained exclude each other",
        "leave one of them out",
    ),
    (
        ["--data", "x", "--set", "stages.1.epocs=3"],
        2,
        "default: stages.1.epocs: unknown value 'epocs', from --set (did you mean epochs?)",
        None,
    ),
    (
        ["--data", "x", "--set", "seed"],
        2,
        "default: PATH=VALUE is wanted, got 'seed', from --set",
        None,
    ),
    (["--data", "x", "--seed", "-3"], 2, "seed: must be at least 0, got -3", None),
    (
        ["--data", "x", "--recipe", "no.yaml"],
        2,
        "no.yaml: there is no such file",
        "finetune recipes ls lists the recipes that ship with finetune",
    ),
]


@pytest.mark.parametrize(("flags", "code", "message", "hint"), WRONG)
def test_a_wrong_flag_is_a_sentence(
    flags: list[str], code: int, message: str, hint: str | None, call: Callable[..., Any]
) -> None:
    answer = call("run", *flags)
    told = f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
    assert (answer.code, answer.out, answer.err) == (code, "", told)


def test_an_unknown_device_names_those_there_are(call: Callable[..., Any]) -> None:
    answer = call("run", "--data", "x", "--device", "gpu")
    assert answer.code == 2
    assert "'gpu'" in answer.err
    assert "auto, cpu, cuda, cuda:1, mps" in answer.err


def test_missing_photos_are_named(tmp_path: Path, call: Callable[..., Any]) -> None:
    answer = call("run", "--data", str(tmp_path / "none"), *QUICK, "--quiet")
    assert answer.code == 3
    assert answer.err.startswith(f"error: there is no folder or file {tmp_path / 'none'}\n")


def test_ctrl_c_says_what_the_folder_holds(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.pipeline.run_stages", interrupt)
    run = tmp_path / "run"
    answer = call("run", "--data", str(made.data), "--out", str(run), *QUICK, "--quiet")
    assert answer.code == 130
    assert answer.err == (
        f"interrupted: {run} holds environment.json, events.jsonl, history.csv, recipe.yaml, "
        f"split.csv: no model yet\nhint: start it again with --out {run} --overwrite\n"
    )


def test_ctrl_c_before_the_run_folder_is_made_says_so(
    made: Any, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Any]
) -> None:
    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("finetune.pipeline.plan", interrupt)
    answer = call("run", "--data", str(made.data), *QUICK, "--quiet")
    assert (answer.code, answer.err) == (130, "interrupted before anything was written\n")


def test_resume_takes_the_recipe_of_the_run_unless_another_is_named(
    monkeypatch: pytest.MonkeyPatch, made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(made.folder / "recipe.yaml", tmp_path / "run")
    out = ["--resume", "--out", str(tmp_path / "run")]
    assert recipe_of(monkeypatch, call, *out) == load_recipe(made.folder / "recipe.yaml")
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ndata: {path: photos}\n")
    named = ["--recipe", str(file)]
    assert recipe_of(monkeypatch, call, *out, *named).name == "mine"
    absent = ["--resume", "--out", str(tmp_path / "absent")]
    assert recipe_of(monkeypatch, call, *absent, *named).name == "mine"
    assert call("run", "--dry-run", *absent).err.startswith("error: no photos are named")


def test_ctrl_c_at_the_page_says_that_the_run_is_complete(made: Any, tmp_path: Path) -> None:
    run = shutil.copytree(made.folder, tmp_path / "run")
    assert interruption(str(run)).message == f"interrupted: {run} is complete"
    (run / "report.html").unlink()
    told = interruption(str(run))
    assert told.message == f"interrupted: {run} is complete, but for its page"
    assert told.hint == f"finetune report {run}"


def test_resuming_a_finished_run_gives_its_figures(made: Any, call: Callable[..., Any]) -> None:
    answer = call("run", "--resume", "--out", str(made.folder), "--json")
    assert answer.err == f"{made.folder} is finished: there is nothing to resume\n"
    assert json.loads(answer.out) == json.loads((made.folder / "metrics.json").read_text())


def test_a_finished_run_is_over_whatever_else_is_asked_for(
    made: Any, call: Callable[..., Any]
) -> None:
    answer = call("run", "--recipe", "gradual", "--resume", "--out", str(made.folder))
    assert (answer.code, answer.out) == (0, "")
    assert answer.err == f"{made.folder} is finished: there is nothing to resume\n"


def test_ctrl_c_before_a_resumed_run_goes_on_says_what_its_folder_holds(
    monkeypatch: pytest.MonkeyPatch, made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "00000001.safetensors").write_bytes(b"")
    (run / "events.jsonl").write_text("")
    monkeypatch.setattr("finetune.pipeline.plan", interrupt)
    answer = call("run", "--data", str(made.data), *QUICK, "--quiet", "--resume", "--out", str(run))
    assert answer.code == 130
    assert answer.err == (
        f"interrupted: {run} can go on\nhint: finetune run --resume --out {run}\n"
    )


def test_what_timm_cannot_load_is_said(
    tiny_folder: Path, tmp_path: Path, call: Callable[..., Any]
) -> None:
    stage = "[{name: full, train: head, epochs: 1, lr: 1e-3}]"
    flags = ("--set", "model.head=mlp", "--set", f"stages={stage}", "--out", str(tmp_path / "run"))
    answer = call("run", "--data", str(tiny_folder), *QUICK, *flags)
    assert answer.code == 0
    assert (
        "warning: timm alone cannot load the saved model, finetune can: the head is mlp, which "
        "timm has no field for" in answer.err
    )


def test_runs_among_the_photos_are_no_class(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., Any],
) -> None:
    monkeypatch.chdir(shutil.copytree(tiny_folder, tmp_path / "photos"))
    for number in (1, 2):
        assert call("run", "--data", ".", *QUICK, "--quiet").code == 0
        run = Path(f"runs/photos-test_vit-00{number}")
        assert json.loads((run / "metrics.json").read_text())["classes"] == ["blue", "green", "red"]


def test_a_home_folder_is_known_by_its_sign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Callable[..., Any]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.doc").write_text("mine")
    answer = call("run", "--data", "x", "--out=~/run", *QUICK)
    assert f"error: {tmp_path / 'run'} exists and is not empty" in answer.err


def test_augmentation_that_changes_nothing_is_said(made: Any, call: Callable[..., Any]) -> None:
    for kind, is_said in (("strong", True), ("none", False), ("standard", False)):
        flags = ("--set", f"augment.kind={kind}", "--dry-run")
        answer = call("run", "--data", str(made.data), *QUICK, *flags)
        told = f"warning: augment: {kind} changes nothing: no stage learns by gradient"
        assert (told in answer.err) == is_said


def test_counts_that_are_made_up_for_twice_are_said(made: Any, call: Callable[..., Any]) -> None:
    twice = [f"training.{name}=balanced" for name in ("class_weights", "sampler")]
    for settings, is_said in ((twice, True), (twice[:1], False), (twice[1:], False)):
        flags = [part for setting in settings for part in ("--set", setting)]
        answer = call("run", "--data", str(made.data), *QUICK, *flags, "--dry-run")
        assert answer.code == 0
        assert ("each make up for the counts" in answer.err) == is_said


def test_of_a_run_that_is_overwritten_nothing_is_left(made: Any, tmp_path: Path) -> None:
    run = shutil.copytree(made.folder, tmp_path / "run")
    assert claim(run, overwrite=True).contents() == ()
