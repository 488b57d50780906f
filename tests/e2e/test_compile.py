"""Training steps by torch's compiler: the same network comes out, and without one a sentence."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finetune.pipeline import run
from finetune.recipe.schema import Recipe

pytestmark = pytest.mark.slow  # compiling takes longer than training

Train = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture
def train(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train everything for two steps, with an average of the weights; give what was saved."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))

    def make(name: str, **runtime: Any) -> dict[str, torch.Tensor]:
        recipe = Recipe(
            model={"backbone": "test_vit", "pretrained": False},
            data={"path": str(tiny_folder)},
            augment="none",
            training={"batch_size": 12, "ema": 0.9},
            stages=[{"name": "full", "train": "all", "epochs": 1, "lr": 1e-4}],
            runtime={"precision": "fp32", "device": "cpu", "workers": 0, **runtime},
        )
        done = run(recipe, out=tmp_path / name)
        return load_file(done.folder / "model" / "model.safetensors")

    return make


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch uses it itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs a C++ compiler")
def test_compiled_steps_train_the_network_itself_but_for_rounding(train: Train) -> None:
    plain, compiled = train("plain"), train("compiled", compile=True)
    assert compiled.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-3, rtol=1e-3)


def test_without_a_compiler_a_run_ends_with_one_sentence(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "finetune", "run", "--backbone", "test_resnet"]
    options = ["--no-pretrained", "--recipe", "from-scratch", "--device", "cpu", "--quiet"]
    where = ["--data", str(tiny_folder), "--out", str(tmp_path / "run")]
    finished = subprocess.run(
        [*command, *options, *where, "--set", "runtime.compile=true"],
        env={**os.environ, "PATH": "", "CXX": "", "FINETUNE_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    assert "torch.compile does not work here: " in finished.stderr
    assert "install a C++ compiler such as g++, or --set runtime.compile=false" in finished.stderr
    assert "Traceback" not in finished.stderr
