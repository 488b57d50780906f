"""`finetune compare`: verdict, tables and JSON of run folders, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from finetune.recipe.load import dump_recipe, load_recipe

MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write the files of a finished run of 200 images of which the first so many are wrong."""

    def make(name: str, *, num_wrong: int = 0, split: str = "test", prefix: str = "") -> Path:
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "model.safetensors").write_bytes(b"x" * 2048)
        labels = ["ants" if row % 2 else "bees" for row in range(200)]
        other = {"ants": "bees", "bees": "ants"}
        said = [other[label] if row < num_wrong else label for row, label in enumerate(labels)]
        paths = [f"{prefix}{row:03d}.jpg" for row in range(200)]
        pd.DataFrame(
            {
                "path": paths, "split": split, "label": labels, "predicted": said,
                "probability": 0.75, "correct": [a == b for a, b in zip(labels, said, strict=True)],
                "p_ants": 0.5, "p_bees": 0.5,
            }
        ).to_csv(folder / "predictions.csv", index=False)  # fmt: skip
        digests = [f"{row:032x}" for row in range(200)]
        pd.DataFrame({"path": paths, "split": split, "digest": digests}).to_csv(
            folder / "split.csv", index=False
        )
        metrics = {
            "schema_version": 1, "classes": ["ants", "bees"], "peak_memory_mib": 512,
            "seconds": {"total": 90.0, "data": 5.0, "stages": {"head": 20.0, "full": 50.0}},
            "num_parameters": 1_500_000, "prediction": {"images_per_second": 40.0},
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(metrics))
        (folder / "environment.json").write_text(json.dumps({"device": "cpu"}))
        return folder

    return make


def test_the_verdict_comes_last_after_runs_differences_and_images(
    make_run: MakeRun, call: Callable[..., Any]
) -> None:
    answer = call("compare", str(make_run("old", num_wrong=30)), str(make_run("new", num_wrong=8)))
    lines = answer.out.splitlines()
    assert (answer.code, answer.err) == (0, "")
    assert lines[0] == "test: 200 images of 2 classes, the same in every run"
    assert lines[2].split() == ["old", "0.850", "0.794", "to", "0.893", "0.850"]
    assert " ".join(lines[6].split()) == "old 1 min 10 s 1 min 30 s 1.50M 512 MiB 40 2.0 KiB"
    assert "  right alone on 22 and 0 images: p < 0.001 by McNemar's exact test" in lines
    assert "images answered differently: 22" in lines
    assert "  and 12 more, with --out FILE.json" in lines
    assert re.fullmatch(
        r"new is better than old by 11\.0 points of accuracy, "
        r"95 % interval [67]\.\d to 1[56]\.\d, p < 0\.001",
        lines[-1],
    )


def test_on_a_terminal_of_80_columns_no_line_of_a_table_is_longer(
    make_run: MakeRun, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = ("photos-efficientnet_b0-001", "photos-mobilenetv3_small_100-002")
    runs = [str(make_run(name, num_wrong=9 * row)) for row, name in enumerate(names)]
    lines = call("compare", *runs).out.splitlines()
    assert max(len(line) for line in lines if line.startswith("  ")) <= 80


def test_json_on_stdout_and_out_hold_the_same_document(
    make_run: MakeRun, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "figures" / "compared.json"
    runs = [str(make_run("a", num_wrong=3)), str(make_run("b", num_wrong=2))]
    answer = call("compare", *runs, "--json", "--out", str(out))
    document = json.loads(answer.out)
    assert document == json.loads(out.read_text())
    assert document["schema_version"] == 1
    assert (document["reference"], document["split"], document["num_samples"]) == ("a", "test", 200)
    assert document["runs"][1]["cost"] == {
        "total_seconds": 90.0, "training_seconds": 70.0, "num_parameters": 1_500_000,
        "peak_memory_mib": 512, "images_per_second": 40.0, "model_bytes": 2048, "device": "cpu",
    }  # fmt: skip
    assert document["differences"][0]["is_told"] is False
    assert document["images"] == [
        {
            "path": "002.jpg",
            "label": "bees",
            "answers": {
                "a": {"predicted": "ants", "probability": 0.75, "is_correct": False},
                "b": {"predicted": "bees", "probability": 0.75, "is_correct": True},
            },
        }
    ]


def test_out_with_html_writes_a_page_with_the_photos_of_the_reference(
    make_run: MakeRun, tmp_path: Path, call: Callable[..., Any]
) -> None:
    reference, run = make_run("old", num_wrong=30), make_run("new", num_wrong=8)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "010.jpg")
    recipe = {"data": {"path": str(tmp_path / "photos")}}
    (reference / "recipe.yaml").write_text(dump_recipe(load_recipe(recipe)))
    out = tmp_path / "figures" / "compared.HTML"
    answer = call("compare", str(reference), str(run), "--out", str(out))
    assert (answer.code, answer.err) == (0, f"comparison written to {out}\n")
    assert "  and 12 more, with --out FILE.json" in answer.out.splitlines()
    page = out.read_text(encoding="utf-8")
    assert f"{answer.out.splitlines()[-1].replace('<', '&lt;')}." in page
    assert "<td>1.50M</td><td>512 MiB</td><td>40</td><td>2.0 KiB</td>" in page
    assert "Only new is right: 22 photos" in page
    assert page.count("<image id=") == 1


def test_a_page_of_folders_without_a_recipe_names_the_photos(
    make_run: MakeRun, tmp_path: Path, call: Callable[..., Any]
) -> None:
    out = tmp_path / "compared.html"
    runs = [str(make_run("a", num_wrong=3)), str(make_run("b", num_wrong=2))]
    document = json.loads(call("compare", *runs, "--json", "--out", str(out)).out)
    assert document["images"][0]["path"] == "002.jpg"
    page = out.read_text(encoding="utf-8")
    assert "no picture: it is not known where the photos are" in page
    assert '<span class="file">002.jpg</span>' in page


def test_what_the_files_do_not_say_is_null(make_run: MakeRun, call: Callable[..., Any]) -> None:
    runs = [make_run("a"), make_run("b")]
    for run in runs:
        (run / "environment.json").unlink()
        (run / "split.csv").unlink()
        shutil.rmtree(run / "model")
        metrics = {"schema_version": 1, "classes": ["ants", "bees"], "seconds": {"total": 2.0}}
        (run / "metrics.json").write_text(json.dumps(metrics))
    document = json.loads(call("compare", *map(str, runs), "--json").out)
    assert set(document["runs"][0]["cost"].values()) == {None}
    assert document["notes"][0].startswith("the images have the same names and labels; whether")


def test_three_runs_are_compared_with_the_first(
    make_run: MakeRun, call: Callable[..., Any]
) -> None:
    runs = [str(make_run(name, num_wrong=n)) for name, n in (("a", 20), ("b", 10), ("c", 5))]
    document = json.loads(call("compare", *runs, "--json").out)
    pairs = [(one["run"], one["reference"]) for one in document["differences"]]
    assert pairs == [("b", "a"), ("c", "a")]


def test_val_serves_where_a_run_has_no_test_and_is_called_no_test(
    make_run: MakeRun, call: Callable[..., Any]
) -> None:
    answer = call("compare", *(str(make_run(name, split="val")) for name in "ab"))
    assert answer.out.startswith("val: 200 images")
    assert "warning: compared on val, which chose the weights of each run: no test" in answer.out


def test_folders_of_one_name_are_called_by_their_paths(
    make_run: MakeRun, call: Callable[..., Any]
) -> None:
    runs = [str(make_run("x/run")), str(make_run("y/run"))]
    document = json.loads(call("compare", *runs, "--json").out)
    assert [run["name"] for run in document["runs"]] == runs


def test_runs_on_other_photos_are_refused_with_exit_code_3(
    make_run: MakeRun, call: Callable[..., Any]
) -> None:
    answer = call("compare", str(make_run("a")), str(make_run("b", prefix="x")))
    assert answer.code == 3
    assert answer.err == (
        "error: a and b were tested on different images; "
        "only in a: 000.jpg, 001.jpg, 002.jpg, 003.jpg, 004.jpg and 195 more; "
        "only in b: x000.jpg, x001.jpg, x002.jpg, x003.jpg, x004.jpg and 195 more\n"
        "hint: finetune run --split RUN/split.csv takes the parts of a run; or evaluate both on "
        "the same photos: finetune evaluate RUN --data DIR --out FOLDER\n"
    )


def test_runs_without_a_common_part_are_refused(
    make_run: MakeRun, call: Callable[..., Any]
) -> None:
    answer = call("compare", str(make_run("a")), str(make_run("b", split="val")))
    assert answer.code == 3
    assert "error: the runs share neither test nor val: a (test), b (val)\n" in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "error: compare needs two runs or more\nhint: finetune compare RUN RUN\n"),
        (["a", "./a"], "error: a is named twice\nhint: name each run once\n"),
        (
            ["a", "b", "--out", "x.csv"],
            "error: --out x.csv must end in .json or .html\nhint: --out x.json\n",
        ),
    ],
)
def test_a_wrong_command_line_is_said(
    arguments: list[str], message: str, call: Callable[..., Any]
) -> None:
    answer = call("compare", *arguments)
    assert (answer.code, answer.err) == (2, message)


def test_an_unfinished_run_says_how_to_end_it(make_run: MakeRun, call: Callable[..., Any]) -> None:
    unfinished = make_run("b")
    (unfinished / "metrics.json").unlink()
    (unfinished / "recipe.yaml").write_text("")
    answer = call("compare", str(make_run("a")), str(unfinished))
    assert (answer.code, answer.err) == (
        3,
        f"error: {unfinished} holds no finished run: it lacks metrics.json\n"
        f"hint: finetune run --out {unfinished} --resume ends it\n",
    )


def test_a_folder_that_is_not_there_is_said(
    make_run: MakeRun, tmp_path: Path, call: Callable[..., Any]
) -> None:
    answer = call("compare", str(make_run("a")), str(tmp_path / "gone"))
    assert answer.code == 3
    assert answer.err.startswith(f"error: {tmp_path}/gone does not exist; a run folder is needed\n")


def test_the_model_of_a_run_points_at_its_run(make_run: MakeRun, call: Callable[..., Any]) -> None:
    model = make_run("a") / "model"
    (model / "finetune.json").write_text("{}")
    answer = call("compare", str(make_run("b")), str(model))
    assert answer.code == 3
    assert f"hint: name the run that it is of: {model.parent}\n" in answer.err


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("metrics.json", "{", "Expecting property name"),
        ("metrics.json", "[]", "it is no JSON object"),
        ("metrics.json", '{"schema_version": 2}', "it is not of schema_version 1"),
        ("predictions.csv", "", "No columns to parse from file"),
        ("predictions.csv", "a,b,c,d,e,f\n", "its columns begin with a, b, c, d, e and 1 more"),
        (
            "predictions.csv",
            "path,split,label,predicted,probability,correct\nx,test,ants,wasps,1,False\n",
            "classes that metrics.json lacks: wasps",
        ),
        (
            "predictions.csv",
            "path,split,label,predicted,probability,correct\nx,test,ants,ants,high,True\n",
            "could not convert string to float",
        ),
        (
            "predictions.csv",
            "path,split,label,predicted,probability,correct\n" + 2 * "x,test,ants,ants,1,True\n",
            "an image stands there twice",
        ),
        ("split.csv", "path,digest\n\udcff", "codec can't decode byte 0xff"),
        ("split.csv", "name\nx\n", "path"),
    ],
)
def test_a_damaged_file_is_named_with_the_reason(
    name: str, text: str, reason: str, make_run: MakeRun, call: Callable[..., Any]
) -> None:
    damaged = make_run("b")
    (damaged / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    answer = call("compare", str(make_run("a")), str(damaged))
    assert answer.code == 3
    assert answer.err.startswith(f"error: {damaged / name} is damaged: ")
    assert reason in answer.err


@pytest.mark.slow
def test_two_real_runs_of_one_split_are_compared(
    made: Any, tmp_path: Path, call: Callable[..., Any]
) -> None:
    second = tmp_path / "second"
    arguments = ["--data", str(made.data), "--recipe", "probe", "--backbone", "test_resnet"]
    split = str(made.folder / "split.csv")
    done = call(
        "run", *arguments, "--no-pretrained", "--out", str(second), "--split", split, "--quiet"
    )
    assert done.code == 0
    document = json.loads(call("compare", str(made.folder), str(second), "--json").out)
    assert document["split"] == "test"
    assert document["num_samples"] == 6
    assert document["notes"] == []  # digests tell that the files are the same
    costs = [run["cost"] for run in document["runs"]]
    assert all(None not in cost.values() for cost in costs)
    other = call("run", *arguments, "--no-pretrained", "--out", str(tmp_path / "third"),
                 "--seed", "5", "--quiet")  # fmt: skip
    assert other.code == 0
    refused = call("compare", str(made.folder), str(tmp_path / "third"))
    assert refused.code == 3
    assert "first and third were tested on different images; only in first: " in refused.err


def test_what_the_files_say_of_leaks_and_groups_is_noted(
    make_run: MakeRun, call: Callable[..., Any]
) -> None:
    runs = make_run("a"), make_run("b")
    for run in runs:
        split = pd.read_csv(run / "split.csv", dtype=str)
        split.assign(group=[f"burst {row // 2}" for row in range(200)]).to_csv(
            run / "split.csv", index=False
        )
        metrics = json.loads((run / "metrics.json").read_text())
        metrics["splits"] = {"val": None, "test": {"num_leaked": 3, "num_near_leaked": 1}}
        (run / "metrics.json").write_text(json.dumps(metrics))
    notes = json.loads(call("compare", *map(str, runs), "--json").out)["notes"]
    assert notes[0].startswith("of 200 images some were also trained on, 4 for a and 4 for b")
    assert notes[1].startswith("the images are of 100 groups, which p-values go by")
