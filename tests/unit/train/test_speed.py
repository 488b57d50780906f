"""Measured speed chooses the precision and says how long a run takes."""

from pathlib import Path

import pytest

from finetune.model.create import create_model
from finetune.recipe.load import load_recipe
from finetune.recipe.resolve import resolve
from finetune.recipe.schema import ResolvedRecipe
from finetune.train.speed import estimate_seconds, measure_speed, with_bf16_choice
from finetune.types import BackboneFacts, DataFacts, MachineFacts

MACHINE = MachineFacts("cpu", "as asked for", has_fast_bf16=False, num_cpus=2)
DATA = DataFacts(num_train=100, num_val=20, class_counts=(50, 50))


def resolved(**values: object) -> ResolvedRecipe:
    recipe = load_recipe({"data": {"path": "photos"}, **values})
    backbone = BackboneFacts(family="conv", has_batch_norm=True, num_depths=5, num_blocks=9)
    return resolve(recipe, data=DATA, backbone=backbone, machine=MACHINE)


def test_bf16_is_chosen_where_it_clearly_pays() -> None:
    machine = with_bf16_choice(MACHINE, {"train_fp32": 10.0, "train_bf16": 15.0})
    assert machine.has_fast_bf16
    assert machine.bf16_reason == "measured here: 15 images/s in bf16, 10 in fp32"


def test_bf16_is_not_chosen_for_a_gain_within_the_noise() -> None:
    assert not with_bf16_choice(MACHINE, {"train_fp32": 10.0, "train_bf16": 11.0}).has_fast_bf16


def test_rule_of_a_gpu_stands() -> None:
    assert with_bf16_choice(MACHINE, {"train_fp32": 10.0}) is MACHINE


def test_estimate_adds_up_stages_and_figures() -> None:
    recipe = resolved(
        stages=[
            {"name": "head", "train": "head", "solver": "probe"},
            {"name": "full", "train": "all", "epochs": 3},
        ]
    )
    speed = {"forward": 10.0, "train_fp32": 5.0, "train_bf16": 50.0}
    figures, probe, full = (20 + 30) / 10, 100 / 10 + 20 / 10, 3 * (100 / 5 + 20 / 10)
    assert estimate_seconds(recipe, DATA, speed, num_test=30) == figures + probe + full


def test_network_is_measured_once_and_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    recipe = load_recipe({"model": {"backbone": "test_resnet", "pretrained": False}})
    model = create_model(recipe, num_classes=2)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    speed = measure_speed(model, MACHINE, channels_last=True)
    assert set(speed) == {"forward", "train_fp32", "train_bf16"}
    assert all(value > 0 for value in speed.values())
    assert measure_speed(model, MACHINE, channels_last=True) == speed
    after = model.network.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
