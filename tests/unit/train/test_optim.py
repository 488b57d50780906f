"""Rates by depth written into the groups, and the schedule over a stage."""

import pytest
import torch

from finetune.components.heads import LinearHead
from finetune.components.policies import AllPolicy
from finetune.components.schedules import ConstantSchedule, CosineSchedule
from finetune.model.backbone import create_backbone
from finetune.model.depth import describe_parameters
from finetune.model.network import Network, build_network
from finetune.recipe.schema import ResolvedStage
from finetune.train.freeze import freeze
from finetune.train.optim import learning_rates, make_optimizer, make_schedule, schedule_factor


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet", pretrained=False)
    return build_network(backbone, LinearHead(), num_classes=3, input_size=(3, 64, 64))


def make_stage(**values: object) -> ResolvedStage:
    given = {
        "name": "full",
        "train": "all",
        "epochs": 2,
        "layer_decay": 0.5,
        "batch_norm": "trained",
        "views": 0,
        **values,
    }
    return ResolvedStage.model_validate(given)


def test_rate_halves_with_each_depth_from_the_head(network: Network) -> None:
    freezing = freeze(network, describe_parameters(network), policy=AllPolicy())
    rates = learning_rates(freezing, lr=1.0, layer_decay=0.5)
    assert rates["backbone.fc.weight"] == 1.0
    assert rates["backbone.layer4.0.conv1.weight"] == 0.5
    assert rates["backbone.conv1.0.weight"] == 0.5**5


def test_final_rates_stand_in_the_groups(network: Network) -> None:
    freezing = freeze(network, describe_parameters(network), policy=AllPolicy())
    optimizer = make_optimizer(network, freezing, make_stage(lr=1.0))
    assert {group["lr"] for group in optimizer.param_groups} == {0.5**n for n in range(6)}
    members = sum(len(group["params"]) for group in optimizer.param_groups)
    assert members == len(list(network.parameters()))


def test_norms_and_biases_are_not_decayed(network: Network) -> None:
    freezing = freeze(network, describe_parameters(network), policy=AllPolicy())
    optimizer = make_optimizer(network, freezing, make_stage(weight_decay=0.1))
    decayed = [
        parameter.ndim
        for group in optimizer.param_groups
        if group["weight_decay"] > 0
        for parameter in group["params"]
    ]
    assert decayed
    assert min(decayed) > 1


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "lion", "lamb"])
def test_optimisers_of_timm_are_built_by_name(network: Network, name: str) -> None:
    freezing = freeze(network, describe_parameters(network), policy=AllPolicy())
    optimizer = make_optimizer(network, freezing, make_stage(optimizer=name))
    assert name in type(optimizer).__name__.lower()


def test_warm_up_rises_to_the_full_rate_and_is_never_zero() -> None:
    stage = make_stage(warmup_fraction=0.5, schedule="constant")
    factors = [schedule_factor(stage, step=step, num_steps=8) for step in range(8)]
    assert factors[0] == pytest.approx(0.2)
    assert factors == sorted(factors)
    assert factors[4:] == [1.0] * 4
    assert isinstance(stage.schedule, ConstantSchedule)


def test_warm_up_is_valid_at_one_step() -> None:
    assert schedule_factor(make_stage(), step=0, num_steps=1) == 1.0


def test_cosine_falls_from_one_to_its_final_part() -> None:
    stage = make_stage(warmup_fraction=0.0, schedule=CosineSchedule(final=0.1).model_dump())
    factors = [schedule_factor(stage, step=step, num_steps=100) for step in range(101)]
    assert factors[0] == 1.0
    assert factors[-1] == pytest.approx(0.1)
    assert factors == sorted(factors, reverse=True)


def test_schedule_scales_every_group_alike(network: Network) -> None:
    freezing = freeze(network, describe_parameters(network), policy=AllPolicy())
    stage = make_stage(lr=1.0, warmup_fraction=0.0)
    optimizer = make_optimizer(network, freezing, stage)
    before = [group["lr"] for group in optimizer.param_groups]
    schedule = make_schedule(optimizer, stage, num_steps=2)
    optimizer.step()
    schedule.step()
    after = [group["lr"] for group in optimizer.param_groups]
    ratios = {round(b / a, 9) for a, b in zip(before, after, strict=True)}
    assert ratios == {round(schedule_factor(stage, step=1, num_steps=2), 9)}


def test_a_schedule_that_rises_by_itself_has_one_rise() -> None:
    stage = make_stage(warmup_fraction=0.5, schedule={"kind": "one_cycle", "peak": 0.25})
    factors = [schedule_factor(stage, step=step, num_steps=100) for step in range(100)]
    assert factors[0] == pytest.approx(0.04)
    assert factors.index(max(factors)) == 25
    assert factors[:26] == sorted(factors[:26])
    assert factors[25:] == sorted(factors[25:], reverse=True)
