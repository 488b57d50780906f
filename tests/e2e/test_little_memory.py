"""Where memory holds few images at once, a run takes longer and comes to the same end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from finetune import Classifier

pytestmark = pytest.mark.slow

MOST = 4  # images in a convolution
STEPS = {"name": "full", "train": "all", "epochs": 1, "lr": 1e-3}
PROBE = {"name": "head", "train": "head", "solver": "probe"}


def fitted(data: Path, out: Path, *stages: dict[str, Any]) -> Classifier:
    recipe = {
        "model": {"backbone": "test_resnet", "pretrained": False},
        "stages": list(stages),
        "training": {"batch_size": 12},
        "runtime": {"workers": 0},
    }
    return Classifier(recipe=recipe, out=out).fit(data)


@pytest.fixture
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = nn.Conv2d.forward

    def forward(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if len(images) > MOST:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB.")
        return compute(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", forward)


def figures(folder: Path) -> dict[str, Any]:
    splits: dict[str, Any] = json.loads((folder / "metrics.json").read_text())["splits"]
    return {name: (part["accuracy"], part["log_loss"]) for name, part in splits.items()}


def test_a_probe_is_the_same(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "one"))
    fitted(tiny_folder, tmp_path / "ample", PROBE)
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "other"))
    request.getfixturevalue("_little_memory")
    fitted(tiny_folder, tmp_path / "little", PROBE)
    found, expected = figures(tmp_path / "little"), figures(tmp_path / "ample")
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-4)


@pytest.mark.usefixtures("_little_memory")
def test_steps_and_validation_go_on_in_pieces(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    fitted(tiny_folder, tmp_path / "run", STEPS)
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    told = [event["message"] for event in events if event["event"] == "Warned"]
    assert any("it is computed in 4 pieces, and steps as before" in one for one in told)
    assert set(figures(tmp_path / "run")) == {"val", "test"}
