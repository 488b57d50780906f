"""The three ways, workers, repeats: the same recipe and seed give the same weights, bit for bit."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finetune import Classifier, Recipe
from finetune.pipeline import run
from finetune.recipe.load import load_recipe
from finetune.recipe.merge import with_arguments

pytestmark = pytest.mark.slow  # each trains, once or more

RECIPE = """
schema_version: 1
name: small
model: {pretrained: false}
augment: {kind: light}
stages:
  - {name: head, train: head, solver: probe}
  - {name: full, train: all, epochs: 2, lr: 1e-3}
training: {mixup: 0.2, clip_norm: 1.0}
runtime: {precision: fp32}
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


def small(recipe_file: Path, data: Path, *overrides: str) -> Recipe:
    recipe = load_recipe(recipe_file, overrides=overrides)
    return with_arguments(recipe, backbone="test_resnet", data=data, device="cpu", seed=3)


@pytest.fixture(scope="module")
def reference(
    recipe_file: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run that the others are compared with."""
    out = tmp_path_factory.mktemp("reference") / "run"
    return run(small(recipe_file, tiny_folder), out=out).folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_equal_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_command_line_gives_equal_weights_and_recipe(
    recipe_file: Path, tiny_folder: Path, reference: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "finetune", "run", "--data", str(tiny_folder)]
    command += ["--recipe", str(recipe_file), "--backbone", "test_resnet", "--device", "cpu"]
    command += ["--seed", "3", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_equal_weights(tmp_path / "run", reference)
    assert (tmp_path / "run" / "recipe.yaml").read_text() == (reference / "recipe.yaml").read_text()


def test_keywords_give_equal_weights_and_recipe(
    recipe_file: Path, tiny_folder: Path, reference: Path, tmp_path: Path
) -> None:
    keywords = Recipe(
        name="small",
        model={"pretrained": False},
        augment="light",
        stages=[
            {"name": "head", "train": "head", "solver": "probe"},
            {"name": "full", "train": "all", "epochs": 2, "lr": 1e-3},
        ],
        training={"mixup": 0.2, "clip_norm": 1.0},
        runtime={"precision": "fp32"},
    )
    classifier = Classifier(
        "test_resnet", recipe=keywords, device="cpu", seed=3, out=tmp_path / "run"
    )
    assert classifier.build_recipe(data=tiny_folder) == small(recipe_file, tiny_folder)
    classifier.fit(tiny_folder)
    assert_equal_weights(tmp_path / "run", reference)


def test_two_workers_give_equal_weights(
    recipe_file: Path, tiny_folder: Path, reference: Path, tmp_path: Path
) -> None:
    recipe = small(recipe_file, tiny_folder, "runtime.workers=2")
    assert_equal_weights(run(recipe, out=tmp_path / "run").folder, reference)


def test_recipe_of_a_run_repeats_it(reference: Path, tmp_path: Path) -> None:
    repeat = run(load_recipe(reference / "recipe.yaml"), out=tmp_path / "run").folder
    assert_equal_weights(repeat, reference)
    assert load_recipe(repeat / "recipe.yaml") == load_recipe(reference / "recipe.yaml")
    assert (repeat / "split.csv").read_text() == (reference / "split.csv").read_text()


def test_another_seed_gives_other_weights(
    recipe_file: Path, tiny_folder: Path, reference: Path, tmp_path: Path
) -> None:
    recipe = small(recipe_file, tiny_folder).model_copy(update={"seed": 4})
    other = weights(run(recipe, out=tmp_path / "run").folder)
    assert any(not torch.equal(other[name], value) for name, value in weights(reference).items())


def test_random_state_of_the_process_is_left_alone(
    recipe_file: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(small(recipe_file, tiny_folder), out=tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
