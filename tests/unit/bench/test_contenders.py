"""The contenders of the speed measurement: their commands, their recipes, what they freeze."""

import sys
from pathlib import Path

import pytest

from finetune.recipe.load import load_recipe

BENCH = Path(__file__).resolve().parents[2] / "bench"
RECIPES = sorted((BENCH / "recipes").glob("*.yaml"))
sys.path.append(str(BENCH))  # which its scripts have, since they stand in it

import contenders  # noqa: E402
import jobs  # noqa: E402
import speed  # noqa: E402
from contenders import Places, Task  # noqa: E402

PLACES = Places(Path("weights"), Path("work"), Path("peers/python"))


def task(contender: str, job: str, *, max_epochs: int | None = None) -> Task:
    return Task(contender, job, "birds", Path("photos"), Path("folder"), 3, max_epochs)


def test_the_recipes_are_found() -> None:
    assert len(RECIPES) >= 6


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_does_the_phases_of_its_job(path: Path) -> None:
    stages = load_recipe(path).stages
    expected = [epochs for _, epochs in jobs.JOBS[path.stem.partition("-")[0]]]
    wanted = [
        "probe" if stage.solver == "probe" else epochs
        for stage, epochs in zip(stages, expected, strict=True)
    ]
    assert ["probe" if s.solver == "probe" else s.epochs for s in stages] == wanted


@pytest.mark.parametrize("job", ["head", "last2", "full", "all"])
def test_every_job_has_a_recipe(job: str) -> None:
    assert contenders.takes_part("finetune", job)


def test_a_variant_takes_part_where_it_has_a_recipe() -> None:
    assert contenders.takes_part("finetune:gradient", "last2")
    assert not contenders.takes_part("finetune:gradient", "all")


def test_a_peer_is_run_by_its_own_python() -> None:
    command = contenders.command_of(task("fastai-frozen-bn", "head"), PLACES)
    assert command[0] == str(Path("peers/python"))
    assert command[1].endswith("fastai_peer.py")
    assert "--frozen-bn" in command


def test_finetune_is_run_by_its_command_line() -> None:
    command = contenders.command_of(task("finetune", "full", max_epochs=1), PLACES)
    assert command[1:4] == ["-m", "finetune", "run"]
    assert command[-2:] == ["--set", "stages.1.epochs=1"]


def test_the_floor_predicts_with_the_model_of_finetune() -> None:
    command = contenders.command_of(task("floor-bf16", "predict"), PLACES)
    assert command[-2:] == ["--model", str(Path("work/models/finetune/model"))]


def test_a_job_of_the_head_watches_all_that_is_not_the_head() -> None:
    assert jobs.frozen_names(["bn1.", "blocks.6.0.bn1.", "classifier."], "head") == [
        "bn1.", "blocks.6.0.bn1.",
    ]  # fmt: skip


def test_a_job_that_ends_with_everything_watches_its_first_phase() -> None:
    assert jobs.frozen_names(["bn1.", "bn2."], "full") == ["bn1.", "bn2."]
    assert jobs.frozen_names(["bn1.", "bn2."], "all") == []


def test_the_last_two_blocks_are_those_that_the_recipe_trains() -> None:
    names = ["blocks.5.1.bn1.", "blocks.5.2.bn1.", "blocks.6.0.bn3.", "bn2."]
    assert jobs.frozen_names(names, "last2") == ["blocks.5.1.bn1."]


def test_each_round_begins_with_another_contender() -> None:
    given = speed.argparse.Namespace(
        rounds=2, contenders=["plain", "floor"], jobs=["head"], sets=["birds"]
    )
    assert [(name, number) for _, _, name, number in speed.turns(given)] == [
        ("plain", 0), ("floor", 0), ("floor", 1), ("plain", 1),
    ]  # fmt: skip
