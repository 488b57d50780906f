"""Freezing that is what it says."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from finetune.components.heads import LinearHead
from finetune.components.policies import AllPolicy, HeadPolicy, LastPolicy, MatchPolicy
from finetune.errors import RecipeError
from finetune.model.backbone import create_backbone
from finetune.model.depth import describe_parameters, is_batch_norm
from finetune.model.network import Network, build_network
from finetune.train.freeze import audit, freeze, set_modes
from finetune.types import ParamInfo, ParamRule


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet", pretrained=False)
    return build_network(backbone, LinearHead(), num_classes=3, input_size=(3, 64, 64))


def snapshot(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def step(network: Network) -> None:
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    network(torch.randn(4, 3, 64, 64)).square().mean().backward()
    optimizer.step()


def changed(before: dict[str, torch.Tensor], network: Network) -> set[str]:
    after = network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_head_stage_changes_the_head_alone_statistics_included(network: Network) -> None:
    freeze(network, describe_parameters(network), policy=HeadPolicy())
    set_modes(network)
    before = snapshot(network)
    step(network)
    assert changed(before, network) == {"backbone.fc.weight", "backbone.fc.bias"}


def test_last_stage_moves_statistics_of_its_own_blocks_alone(network: Network) -> None:
    freeze(network, describe_parameters(network), policy=LastPolicy(last=1))
    set_modes(network)
    before = snapshot(network)
    step(network)
    moved = {name for name in changed(before, network) if "running" in name}
    assert moved
    assert all(name.startswith("backbone.layer4.") for name in moved)


def test_frozen_statistics_hold_still_where_everything_trains(network: Network) -> None:
    freeze(network, describe_parameters(network), policy=AllPolicy())
    set_modes(network, "frozen")
    before = snapshot(network)
    step(network)
    moved = changed(before, network)
    assert not any("running" in name for name in moved)
    assert "backbone.bn1.weight" in moved


def test_batch_norm_with_a_frozen_scale_holds_still(network: Network) -> None:
    freeze(network, describe_parameters(network), policy=MatchPolicy(match=r"layer1.0.conv1"))
    set_modes(network)
    assert not any(module.training for module in network.modules() if is_batch_norm(module))


def test_stage_that_trains_nothing_is_refused(network: Network) -> None:
    class Nothing:
        def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
            return [ParamRule(param.name, trainable=False) for param in params]

    with pytest.raises(RecipeError, match=r"stages\.1\.train: this stage trains nothing"):
        freeze(network, describe_parameters(network), policy=Nothing(), place="stages.1.train")


def test_policy_that_leaves_parameters_out_is_refused(network: Network) -> None:
    class Short:
        def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
            return [ParamRule(params[0].name, trainable=True)]

    with pytest.raises(RecipeError, match="one rule a parameter, in order"):
        freeze(network, describe_parameters(network), policy=Short())


def test_audit_has_one_row_a_depth_and_counts_every_parameter(network: Network) -> None:
    freezing = freeze(network, describe_parameters(network), policy=LastPolicy(last=2))
    set_modes(network)
    rows = audit(network, freezing, {param.name: 0.5 for param, _ in freezing.trained})
    assert [row.depth_name for row in rows] == ["stem", "1", "2", "3", "4", "head"]
    assert [row.batch_norm for row in rows] == [
        "frozen",
        "frozen",
        "frozen",
        "trained",
        "trained",
        "none",
    ]
    assert [row.lr for row in rows] == [0, 0, 0, 0.5, 0.5, 0.5]
    total = sum(parameter.numel() for parameter in network.parameters())
    assert sum(row.num_trained + row.num_frozen for row in rows) == total
