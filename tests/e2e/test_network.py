"""Nothing but the weights that were asked for is looked for in the network."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each is a process of its own

WATCHED = Path(__file__).with_name("watched.py")
HUB = "huggingface.co"
RECIPE = """\
schema_version: 1
name: offline
augment: {kind: light}
training: {batch_size: 8}
stages:
  - {name: head, train: head, solver: probe}
  - {name: full, train: all, epochs: 1, lr: 1e-3}
runtime: {device: cpu, workers: 1}
"""
Finetune = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "attempts"


@pytest.fixture
def finetune(tmp_path: Path, log: Path) -> Finetune:
    """A function (arguments) -> what `finetune` did, on a machine without a network."""

    def call(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(WATCHED), str(log), *map(str, arguments)]
        environment = {**os.environ, "FINETUNE_CACHE": str(tmp_path / "cache")}
        environment.pop("HF_HUB_OFFLINE", None)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=300
        )

    return call


def attempts(log: Path) -> list[str]:
    """What was looked for."""
    return log.read_text(encoding="utf-8").splitlines() if log.is_file() else []


def test_from_data_to_answers_nothing_is_looked_for(
    finetune: Finetune, tiny_folder: Path, tmp_path: Path, log: Path
) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(RECIPE)
    photo = next(tiny_folder.rglob("*.png"))
    model = ("--backbone", "test_resnet", "--set", "model.pretrained=false")
    for arguments in (
        ("check", tiny_folder, "--out", tmp_path / "findings.json"),
        ("run", "--recipe", recipe, "--data", tiny_folder, "--out", out, *model),
        ("evaluate", out, "--data", tiny_folder),
        ("predict", out, photo),
        ("report", out),
        ("backbones",),
        ("recipes", "ls"),
        ("cache", "ls"),
    ):
        done = finetune(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert attempts(log) == []


def test_weights_of_a_hub_are_all_that_is_looked_for(
    finetune: Finetune, tiny_folder: Path, tmp_path: Path, log: Path
) -> None:
    done = finetune(
        *("run", "--data", tiny_folder, "--backbone", "resnet18", "--out", tmp_path / "run")
    )
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert attempts(log)
    assert all(HUB in attempt for attempt in attempts(log)), attempts(log)
    assert not (tmp_path / "run").exists()
