"""Backbones and heads of a person's own go all the way, or are refused at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from finetune import Classifier, Recipe, load
from finetune.errors import BackboneError, BundleError
from finetune.model.backbone import create_backbone


class Wide(nn.Module):
    """A backbone of a person who knows little of timm."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features, self.num_classes = 8, 10
        self.layer, self.fc = nn.Conv2d(3, 8, 7, 4), nn.Linear(8, 10)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images)

    def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes, self.fc = num_classes, nn.Linear(8, num_classes)


def wide_of_ones_own(pretrained: bool = False, **_: object) -> nn.Module:
    return Wide()


def bare_of_ones_own(pretrained: bool = False, **_: object) -> nn.Module:
    return nn.Linear(3, 3)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register both with timm, for one test."""
    from timm.models import _registry

    for name in ("_model_entrypoints", "_model_to_module"):
        monkeypatch.setattr(_registry, name, dict(getattr(_registry, name)))
    for entry in (wide_of_ones_own, bare_of_ones_own):
        _registry._model_entrypoints[entry.__name__] = entry


@pytest.mark.slow
def test_a_module_registered_without_timms_builder_goes_all_the_way(
    tiny_folder: Path, tmp_path: Path
) -> None:
    stages = [{"name": "full", "train": "all", "epochs": 1}]
    done = Classifier(
        "wide_of_ones_own",
        recipe={"stages": stages, "augment": "none"},
        pretrained=False,
        device="cpu",
        out=tmp_path / "run",
    ).fit(tiny_folder)
    photo = next(tiny_folder.glob("*/*.png"))
    again = load(tmp_path / "run", device="cpu")
    assert np.array_equal(again.predict_proba([photo]), done.predict_proba([photo]))
    again.save(tmp_path / "saved")
    saved = load(tmp_path / "saved", device="cpu")
    assert np.array_equal(saved.predict_proba([photo]), done.predict_proba([photo]))


def test_a_module_that_is_no_backbone_is_refused_at_once() -> None:
    with pytest.raises(BackboneError) as caught:
        create_backbone("bare_of_ones_own", pretrained=False)
    assert caught.value.message == (
        "bare_of_ones_own is no model as timm has them: it lacks forward_features, forward_head, "
        "num_classes, num_features"
    )


class Twice:
    """A head of Python."""

    def build(self, in_features: int, num_classes: int) -> nn.Module:
        return nn.Sequential(nn.Linear(in_features, 4), nn.Linear(4, num_classes))


@pytest.mark.slow
def test_a_model_with_a_head_from_python_is_loaded_with_it(
    tiny_folder: Path, tmp_path: Path
) -> None:
    recipe = Recipe(
        model={"backbone": "test_resnet", "pretrained": False, "head": Twice()},
        stages=[{"name": "full", "train": "all", "epochs": 1}],
        augment="none",
    )
    done = Classifier(recipe=recipe, out=tmp_path / "run", device="cpu").fit(tiny_folder)
    photo = next(tiny_folder.glob("*/*.png"))
    with pytest.raises(BundleError) as caught:
        load(tmp_path / "run")
    assert "is a Python object, tests.e2e.test_own_parts.Twice, which" in caught.value.message
    assert caught.value.hint == "from finetune import load; load(path, head=THE_OBJECT)"
    again = load(tmp_path / "run", device="cpu", head=Twice())
    assert np.array_equal(again.predict_proba([photo]), done.predict_proba([photo]))
    again.set_params(out=tmp_path / "next").fit(tiny_folder)
