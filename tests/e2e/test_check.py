"""What a check stores of a backbone serves a run, and the other way round."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune.cli.app import main
from finetune.data.check import check_images
from finetune.data.index import index_source
from finetune.model.create import create_model
from finetune.model.features import compute_features
from finetune.model.inference import InferenceOptions
from finetune.pipeline import run
from finetune.recipe.schema import Recipe

pytestmark = pytest.mark.slow  # a network computes features

RECIPE: dict[str, Any] = {
    "model": {"backbone": "test_vit", "pretrained": False},
    "stages": [{"name": "head", "train": "head", "solver": "probe"}],
    "runtime": {"device": "cpu", "workers": 0, "frozen_precision": "fp32"},
}


@pytest.fixture
def features(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], tuple[np.ndarray, int]]:
    """Compute the features of the tiny folder; give them, and how many were not stored."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))

    def compute() -> tuple[np.ndarray, int]:
        told = [0]
        values = compute_features(
            create_model(Recipe(**RECIPE), num_classes=3),
            check_images(index_source(tiny_folder), max_pixels=10_000).samples,
            label="test_vit",
            options=InferenceOptions(batch_size=8),
            progress=lambda done, total: told.append(done),
        )
        return values, told[-1]

    return compute


def test_features_are_computed_once_and_are_equal_when_read(
    features: Callable[[], tuple[np.ndarray, int]],
) -> None:
    computed, num_computed = features()
    stored, num_missing = features()
    assert (num_computed, num_missing) == (36, 0)
    assert computed.dtype == np.float32
    assert np.array_equal(computed, stored)
    assert len(np.unique(computed, axis=0)) == 36


def test_a_run_has_stored_what_a_check_wants(
    features: Callable[[], tuple[np.ndarray, int]], tiny_folder: Path, tmp_path: Path
) -> None:
    done = run(Recipe(**RECIPE, data={"path": str(tiny_folder)}), out=tmp_path / "run")
    num_used = len(done.index.part("train")) + len(done.index.part("val"))
    assert features()[1] == 36 - num_used


def test_a_check_with_a_backbone_finds_planted_labels(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights"
    recipe = Recipe(**RECIPE, data={"path": str(tiny_folder)})
    shutil.copytree(run(recipe, out=tmp_path / "run").folder / "model", weights)
    photos = shutil.copytree(tiny_folder, tmp_path / "photos")
    planted = (photos / "red/red_03.png").rename(photos / "blue/planted.png")
    assert main(["check", str(photos), "--backbone", f"local-dir:{weights}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["backbone"] == f"local-dir:{weights}"
    found = [row for row in document["findings"] if row["kind"] == "suspect_label"]
    assert found[0]["files"][0]["path"] == planted.relative_to(photos).as_posix()
    assert found[0]["detail"].startswith("labelled blue (0.")
    assert ", looks like red (" in found[0]["detail"]
    assert found[0]["level"] == "note"
