"""A network in two parts is the network: bit by bit, in both modes, gradients included."""

import copy

import pytest
import torch
from every_backbone import check_split
from torch import nn

from finetune.components.heads import LinearHead, MlpHead
from finetune.components.policies import (
    AllPolicy,
    BiasPolicy,
    BlocksPolicy,
    HeadPolicy,
    LastBlocksPolicy,
    LastPolicy,
    LoraPolicy,
    LoraSettings,
    MatchPolicy,
    NormPolicy,
)
from finetune.model import boundary, tracing
from finetune.model.adapters import adapted, find_targets
from finetune.model.backbone import create_backbone
from finetune.model.boundary import NoSplit, Split, split_network
from finetune.model.depth import describe_parameters
from finetune.model.network import Network, build_network
from finetune.train.freeze import freeze, set_modes
from tests.unit.model.conftest import MakeNetwork
from tests.unit.model.test_every_backbone import SAMPLE

FAMILIES = (
    "test_resnet",
    "test_vit",
    *(
        pytest.param(f"test_{name}", marks=pytest.mark.slow)
        for name in ("byobnet", "convnext", "efficientnet", "mambaout", "nfnet")
    ),
)
LATE = (HeadPolicy(), LastPolicy(last=1), LastPolicy(last=2), LastBlocksPolicy(last_blocks=2))


@pytest.fixture
def resnet(make_network: MakeNetwork) -> Network:
    return prepared(make_network("test_resnet"), LastPolicy(last=1))


def prepared(network: Network, policy: object, batch_norm: str = "trained") -> Network:
    """Give what training has: random scales and statistics, a policy, and its modes."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # scales of a new network hide what blocks add
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    freeze(network, describe_parameters(network), policy=policy, batch_norm=batch_norm)
    set_modes(network, batch_norm)
    return network


def with_drops(name: str) -> Network:
    """Build a network that draws in training: dropout before its head, drop path in its blocks."""
    torch.manual_seed(0)
    backbone = create_backbone(name, pretrained=False, drop_rate=0.2, drop_path_rate=0.3)
    size = tuple(backbone.pretrained_cfg["input_size"])
    return build_network(backbone, LinearHead(), num_classes=3, input_size=size)


def images_for(network: Network, number: int = 5, seed: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, *network.input_size, generator=generator)


def outcome(part: nn.Module, network: nn.Module, given: tuple[torch.Tensor, ...]) -> dict:
    """Make a forward and a backward pass; give logits, gradients and buffers."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.zero_grad(set_to_none=True)
    torch.manual_seed(11)
    logits = part(*given)
    torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 3).backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    after = {name: buffer.clone() for name, buffer in network.named_buffers()}
    for name, buffer in network.named_buffers():
        buffer.copy_(before[name])
    return {"logits": logits.detach(), **gradients, **{f"{n}@": b for n, b in after.items()}}


def assert_exact(network: Network, split: Split) -> None:
    """Compare the parts with the whole in the modes of training and in eval mode."""
    images = images_for(network)
    crossing = split.frozen(images)
    assert [tuple(tensor.shape[1:]) for tensor in crossing] == list(split.shapes)
    assert not any(tensor.requires_grad for tensor in crossing)
    modes = [module.training for module in network.modules()]
    whole = outcome(network, network, (images,))
    parts = outcome(split.trained, network, crossing)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    assert [module.training for module in network.modules()] == modes
    network.eval()
    with torch.no_grad():
        assert torch.equal(split.trained(*crossing), network(images))


def split_of(network: Network) -> Split:
    """Split a network that can be split."""
    split = split_network(network)
    assert isinstance(split, Split), split
    return split


@pytest.mark.parametrize("policy", LATE, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_parts_are_the_network_bit_by_bit_and_draw_what_it_draws(name: str, policy: object) -> None:
    network = prepared(with_drops(name), policy)
    split = split_of(network)
    assert split.how == "graph"
    assert_exact(network, split)


@pytest.mark.parametrize("name", ["test_byobnet", "test_efficientnet", "test_resnet"])
def test_parts_are_exact_with_frozen_statistics(make_network: MakeNetwork, name: str) -> None:
    network = prepared(make_network(name), LastPolicy(last=2), "frozen")
    assert_exact(network, split_of(network))


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_regular_expression_finds_may_learn_alone(
    make_network: MakeNetwork, name: str
) -> None:
    last = [p.name for p in describe_parameters(make_network(name)) if not p.is_head][-1]
    network = prepared(make_network(name), MatchPolicy(match=f"^{last}$"))
    assert_exact(network, split_of(network))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_behind_the_stem_is_exact_too(make_network: MakeNetwork, name: str) -> None:
    network = prepared(make_network(name), NormPolicy())
    split = split_network(network)
    assert isinstance(split, Split) is (name != "test_resnet")
    if isinstance(split, Split):
        assert_exact(network, split)


def test_a_head_of_ours_is_behind_the_cut(make_network: MakeNetwork) -> None:
    network = prepared(make_network("test_resnet", head=MlpHead(hidden=8)), HeadPolicy())
    split = split_of(network)
    assert split.reason.startswith("cut before head: 1 tensor of 96 values an image, 100%")
    assert_exact(network, split)


def test_a_frozen_block_behind_one_that_learns_is_in_the_trained_part(
    make_network: MakeNetwork,
) -> None:
    network = prepared(make_network("test_vit"), BlocksPolicy(blocks=(3,)))
    split = split_of(network)
    assert "cut before blocks.2:" in split.reason
    assert_exact(network, split)


@pytest.mark.parametrize(
    ("name", "policy", "reason"),
    [
        ("test_resnet", AllPolicy(), "the first layer learns"),
        ("test_vit", BiasPolicy(), "the first layer learns"),
        ("test_resnet", NormPolicy(), "the first layer learns"),
    ],
)
def test_what_learns_from_the_start_is_not_split(
    make_network: MakeNetwork, name: str, policy: object, reason: str
) -> None:
    assert split_network(prepared(make_network(name), policy)) == NoSplit(reason)


def test_a_network_in_eval_mode_is_not_split(resnet: Network) -> None:
    assert split_network(resnet.eval()) == NoSplit("the network is in eval mode")


def test_a_network_of_which_nothing_learns_is_not_split(resnet: Network) -> None:
    resnet.requires_grad_(False)
    assert split_network(resnet) == NoSplit("nothing learns")


def test_a_frozen_normalisation_in_training_mode_is_not_before_the_cut(resnet: Network) -> None:
    resnet.backbone.layer3[0].bn2.train()
    split = split_of(resnet)
    assert "cut before layer3.0.bn2:" in split.reason
    assert_exact(resnet, split)


def test_statistics_of_a_batch_are_no_function_of_an_image(resnet: Network) -> None:
    norm = resnet.backbone.layer2[0].bn1
    norm.running_mean = norm.running_var = None  # as without track_running_stats
    assert split_network(resnet) == NoSplit("the frozen part does not take each image for itself")


def test_one_tensor_crosses_where_the_others_follow_from_it(resnet: Network) -> None:
    assert resnet.backbone.layer4[0].downsample[0].kernel_size == 2  # it pools what crosses
    split = split_of(resnet)
    assert split.reason.startswith("cut before layer4: 1 tensor of")


def test_pooling_is_before_the_cut_if_only_the_head_learns(make_network: MakeNetwork) -> None:
    network = prepared(make_network("test_resnet"), HeadPolicy())
    assert split_of(network).shapes == ((96,),)


def test_a_step_of_the_part_moves_the_network_and_nothing_frozen(resnet: Network) -> None:
    split = split_of(resnet)
    images = images_for(resnet)
    crossing = split.frozen(images)
    stored = [tensor.clone() for tensor in crossing]
    before = {name: tensor.clone() for name, tensor in resnet.state_dict().items()}
    split.trained(*crossing).square().sum().backward()
    torch.optim.SGD([p for p in resnet.parameters() if p.requires_grad], lr=0.1).step()
    moved = {n for n, tensor in resnet.state_dict().items() if not torch.equal(tensor, before[n])}
    assert moved
    assert all(name.startswith(("backbone.layer4.", "backbone.fc.")) for name in moved)
    assert all(map(torch.equal, split.frozen(images), stored))
    assert all(map(torch.equal, crossing, stored))
    assert_exact(resnet, split)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_parts_are_exact_in_bfloat16_and_channels_last(
    make_network: MakeNetwork, name: str
) -> None:
    network = prepared(make_network(name), LastPolicy(last=2))
    network.to(memory_format=torch.channels_last)
    split = split_of(network)
    images = images_for(network).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        whole = outcome(network, network, (images,))
        parts = outcome(split.trained, network, split.frozen(images))
    assert all(torch.equal(parts[name], value) for name, value in whole.items())


def test_splitting_changes_nothing(resnet: Network) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    before = copy.deepcopy(resnet)
    keys = {name: set(vars(module)) for name, module in resnet.named_modules()}
    split_of(resnet)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in before.modules()] == [m.training for m in resnet.modules()]
    assert [p.requires_grad for p in before.parameters()] == [
        p.requires_grad for p in resnet.parameters()
    ]
    assert {name: set(vars(module)) for name, module in resnet.named_modules()} == keys
    now = resnet.state_dict()
    assert all(torch.equal(tensor, now[name]) for name, tensor in before.state_dict().items())


@pytest.mark.slow
def test_attention_that_keeps_a_bias_in_eval_mode_is_left_usable(
    make_network: MakeNetwork,
) -> None:
    network = prepared(make_network("levit_128s"), HeadPolicy())
    with torch.no_grad():
        expected = network.eval()(images_for(network, 2))
    set_modes(network)
    split_of(network)
    with torch.no_grad():
        assert torch.equal(network.eval()(images_for(network, 2)), expected)


def test_the_frozen_part_stays_frozen_whatever_it_is_told(resnet: Network) -> None:
    split = split_of(resnet)
    modes = [module.training for module in resnet.modules()]
    split.frozen.train()
    split.frozen.eval()
    assert [module.training for module in resnet.modules()] == modes


def test_the_part_of_an_average_answers_as_the_average(resnet: Network) -> None:
    split = split_of(resnet)
    average = copy.deepcopy(resnet).eval()
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(0.01 * parameter.requires_grad)
        images = images_for(resnet)
        answer = split.trained.of(average)(*split.frozen(images))
        assert torch.equal(answer, average(images))
        assert not torch.equal(answer, resnet.eval()(images))


def test_a_copy_of_a_network_has_the_same_digest(resnet: Network) -> None:
    assert split_of(copy.deepcopy(resnet)).digest == split_of(resnet).digest


def test_digest_is_of_what_is_frozen_alone(resnet: Network) -> None:
    digest = split_of(resnet).digest
    with torch.no_grad():
        resnet.backbone.fc.weight.add_(1)
    assert split_of(resnet).digest == digest


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.backbone.layer1[0].conv1.weight.data.flatten()[:1].add_(1e-6),
        lambda net: net.backbone.bn1.running_mean[:1].add_(1e-6),
        lambda net: setattr(net.backbone.bn1, "eps", 1e-4),
        lambda net: setattr(net.backbone.layer1[0], "act2", nn.GELU()),
    ],
    ids=["weight", "statistics", "eps", "activation"],
)
def test_digest_changes_with_what_is_frozen(resnet: Network, change: object) -> None:
    digest = split_of(resnet).digest
    change(resnet)
    assert split_of(resnet).digest != digest


@pytest.mark.parametrize("how", ["head", "features"])
def test_a_head_alone_is_cut_off_where_tracing_fails(
    make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def refuse(*args: object) -> None:
        raise tracing.fx.proxy.TraceError("no")

    monkeypatch.setattr(boundary, "trace", refuse)
    network = make_network("test_convnext") if how == "head" else with_drops("test_convnext")
    split = split_of(prepared(network, HeadPolicy()))
    assert split.how == "features"
    where = "the head" if how == "head" else "forward_head"
    assert split.reason.startswith(f"cut before {where}, for the network cannot be traced: 1 ten")
    assert_exact(network, split)


def test_more_than_a_head_stays_whole_where_tracing_fails(
    resnet: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise tracing.fx.proxy.TraceError("no proxies here")

    monkeypatch.setattr(boundary, "trace", refuse)
    assert split_network(resnet) == NoSplit("no proxies here")


@pytest.mark.parametrize("name", FAMILIES)
def test_adapters_in_the_last_blocks_are_behind_the_cut(
    make_network: MakeNetwork, name: str
) -> None:
    network = make_network(name)
    last = find_targets(network, LoraSettings(targets="."))[-1]
    settings = LoraSettings(rank=2, targets=f"^{last}$", dropout=0.1)
    with adapted(network, settings):
        prepared(network, LoraPolicy(lora=settings))
        split = split_of(network)
        assert split.frozen_share > 0.5
        assert_exact(network, split)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["last", "head"])
@pytest.mark.parametrize("name", SAMPLE)
def test_forty_backbones_are_traced_and_split_exactly(name: str, policy: str) -> None:
    assert check_split(name, policy)["how"] == "graph"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mvitv2_tiny", "cut before stages.3: 1 tensor of 1,536 values"),  # sizes beside tensors
        ("tnt_s_legacy_patch16_224", "cut before blocks.11: 2 tensors of 3,456 values"),  # patches
    ],
)
def test_rows_of_an_image_and_sizes_beside_tensors_may_cross(name: str, reason: str) -> None:
    assert check_split(name)["reason"].startswith(reason)
