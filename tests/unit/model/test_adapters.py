"""Adapters add what was learnt and nothing else, are merged exactly, and leave nothing behind."""

import copy
import sys

import pytest
import torch
from torch import nn

from finetune.components import policies
from finetune.components.heads import MlpHead
from finetune.components.policies import LoraSettings
from finetune.errors import MissingExtraError, RecipeError
from finetune.model.adapters import adapted, find_targets, plain_state
from finetune.model.depth import describe_parameters
from finetune.model.network import Network

SETTINGS = LoraSettings(rank=2)
FAMILIES = ["test_byobnet", "test_convnext", "test_mambaout", "test_resnet", "test_vit"]
# Which groups of timm's an adapter falls into: a name as each of these families forms it.
GROUPED = [*FAMILIES, "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"]


@pytest.fixture
def network(make_network):
    return make_network("test_vit")


def learn(network):
    """Change every adapter, as training would; scales of a new network hide what blocks add."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 1.0, 0.1)
        elif ".lora_B." in name:
            nn.init.normal_(parameter, std=0.1)


def answers(network):
    torch.manual_seed(2)
    with torch.no_grad():
        return network.eval()(torch.randn(2, *network.input_size))


def adapters(network):
    return {name: value for name, value in network.named_parameters() if ".lora_" in name}


def copies(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def are_equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", FAMILIES)
def test_merged_weights_answer_as_the_adapters_did(make_network, name):
    network = make_network(name)
    with adapted(network, SETTINGS):
        before = answers(network)
        learn(network)
        expected, state = answers(network), plain_state(network)
    network.load_state_dict(state)
    assert (expected - before).abs().max() > 1e-2
    # one product instead of two: rounding of float32 alone
    torch.testing.assert_close(answers(network), expected, atol=1e-5, rtol=1e-5)


def test_convolutions_of_several_pixels_are_merged_too(make_network):
    network = make_network("test_resnet")
    with adapted(network, LoraSettings(rank=2, targets=r"layer2.*conv2")):
        learn(network)
        expected, state = answers(network), plain_state(network)
        assert len(adapters(network)) == 2
    network.load_state_dict(state)
    torch.testing.assert_close(answers(network), expected, atol=1e-5, rtol=1e-5)


def test_new_adapters_change_no_answer(network):
    before = answers(network)
    with adapted(network, SETTINGS):
        assert torch.equal(answers(network), before)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_is_as_before_when_they_are_off(make_network, name):
    network = make_network(name)
    modules, state = list(network.named_modules()), copies(network)
    with adapted(network, SETTINGS):
        pass
    found = list(network.named_modules())
    assert [name for name, _ in found] == [name for name, _ in modules]
    assert all(one is other for (_, one), (_, other) in zip(found, modules, strict=True))
    assert are_equal(copies(network), state)
    assert not hasattr(network, "peft_config")


def test_they_are_taken_off_after_an_error_too(network):
    with pytest.raises(ZeroDivisionError), adapted(network, SETTINGS):
        raise ZeroDivisionError
    assert not adapters(network)


def test_they_can_be_put_on_again(network):
    for _ in range(2):
        with adapted(network, SETTINGS):
            assert len(adapters(network)) == 48
    assert not adapters(network)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_adapter_is_heard(make_network, name):
    network = make_network(name)
    with adapted(network, SETTINGS):
        learn(network)
        network(torch.randn(2, *network.input_size)).square().sum().backward()
        gradients = {name: value.grad for name, value in adapters(network).items()}
    assert gradients
    assert [name for name, grad in gradients.items() if grad is None or not grad.any()] == []


def test_layers_whose_weight_a_block_uses_directly_are_no_targets(make_network):
    network = make_network("test_vit")
    network.backbone.blocks[0].mlp.fc1.forward = None  # as is: nobody would call it
    network.backbone.blocks[0].mlp.forward = UsesWeight(network.backbone.blocks[0].mlp.fc1)
    targets = find_targets(network, SETTINGS)
    assert "backbone.blocks.0.mlp.fc1" not in targets
    assert "backbone.blocks.1.mlp.fc1" in targets


class UsesWeight:
    """A block as some of timm's are: it multiplies by the weight of a layer that it never calls."""

    def __init__(self, layer):
        self.layer = layer

    def __call__(self, tokens):
        return nn.functional.linear(tokens, self.layer.weight)[..., : tokens.shape[-1]]


class WithAttention(nn.Module):
    """A backbone whose attention is torch's own."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(8, 8)
        self.again = self.shared
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def get_classifier(self):
        return self.fc

    def forward(self, images):
        tokens = self.again(self.shared(images.flatten(2).transpose(1, 2)))
        return self.fc(self.mix(self.attention(tokens, tokens, tokens)[0]).mean(1))


def test_torchs_attention_and_shared_layers_are_no_targets():
    network = Network(WithAttention(), num_classes=3, input_size=(8, 2, 2))
    assert find_targets(network, SETTINGS) == ("backbone.mix",)


def test_the_head_is_no_target(make_network):
    network = make_network("test_vit", head=MlpHead(hidden=8))
    targets = find_targets(network, LoraSettings(targets="."))
    assert targets
    assert all(name.startswith("backbone.") for name in targets)


def test_auto_takes_linear_layers_and_convolutions_of_one_pixel(make_network):
    network = make_network("test_byobnet")
    modules = dict(network.named_modules())
    targets = [modules[name] for name in find_targets(network, SETTINGS)]
    kernels = {module.kernel_size for module in targets if isinstance(module, nn.Conv2d)}
    assert kernels == {(1, 1)}
    assert any(module.kernel_size == (3, 3) for module in modules.values() if is_conv(module))


def is_conv(module):
    return isinstance(module, nn.Conv2d)


def test_targets_are_searched_in_the_dotted_name(network):
    targets = find_targets(network, LoraSettings(targets=r"blocks\.[01]\.attn\.qkv$"))
    assert targets == ("backbone.blocks.0.attn.qkv", "backbone.blocks.1.attn.qkv")


def test_looking_for_targets_disturbs_neither_modes_nor_randomness(network):
    network.train()
    network.backbone.blocks[1].eval()
    modes = {name: module.training for name, module in network.named_modules()}
    random = torch.get_rng_state()
    with adapted(network, SETTINGS):
        pass
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in network.modules())


def test_what_is_random_in_them_follows_from_the_seed(network):
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(len(states))
        with adapted(network, SETTINGS, seed=seed):
            states.append({name: value.clone() for name, value in adapters(network).items()})
    assert are_equal(states[0], states[1])
    assert not are_equal(states[0], states[2])


def test_a_state_without_adapters_is_the_state_itself(network):
    assert are_equal(plain_state(network), network.state_dict())


def test_a_copy_of_the_network_has_a_plain_state_of_its_own(network):
    names = list(network.state_dict())
    with adapted(network, SETTINGS):
        average = copy.deepcopy(network)
        learn(average)
    state = plain_state(average)
    assert list(state) == names
    assert not torch.equal(
        state["backbone.blocks.0.mlp.fc1.weight"], network.backbone.blocks[0].mlp.fc1.weight
    )


@pytest.mark.parametrize("name", GROUPED)
def test_an_adapter_belongs_to_the_depth_of_its_layer(make_network, name):
    network = make_network(name)
    alone = {param.name: (param.depth, param.block) for param in describe_parameters(network)}
    with adapted(network, SETTINGS):
        found = {param.name: param for param in describe_parameters(network)}
    misplaced = [
        name
        for name, param in found.items()
        if ".lora_" in name
        and (param.depth, param.block) != alone[name.partition(".lora_")[0] + ".weight"]
    ]
    assert misplaced == []
    assert not any(param.is_norm for name, param in found.items() if ".lora_" in name)


def test_a_rank_and_an_alpha_are_those_of_the_recipe(network):
    with adapted(network, LoraSettings(rank=3, alpha=1.5)):
        layer = network.backbone.blocks[0].mlp.fc1
        assert layer.lora_A["default"].weight.shape[0] == 3
        assert layer.scaling["default"] == 0.5


class OnlyDepthwise(nn.Module):
    """A backbone without any layer that can have an adapter."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 3, groups=3)
        self.fc = nn.Linear(3, 2)

    def get_classifier(self):
        return self.fc

    def forward(self, images):
        return self.fc(self.stem(images).mean((2, 3)))


def message(network, settings):
    with pytest.raises(RecipeError) as caught:
        find_targets(network, settings, place="stages.1.train")
    return str(caught.value)


def test_a_network_without_targets_is_refused_in_one_sentence():
    network = Network(OnlyDepthwise(), num_classes=2, input_size=(3, 8, 8))
    assert message(network, SETTINGS) == (
        "stages.1.train: no linear layer and no 1 by 1 convolution outside the head can have an "
        "adapter\nhint: no layer of this backbone can; write train: {last: 1}"
    )


def test_an_expression_that_finds_nothing_is_told_what_there_is(network):
    assert message(network, LoraSettings(targets="atn")) == (
        "stages.1.train: targets 'atn' finds none of the layers that can have an adapter\n"
        "hint: there are backbone.patch_embed.proj, backbone.blocks.0.attn.qkv, "
        "backbone.blocks.0.attn.proj, backbone.blocks.0.mlp.fc1, backbone.blocks.0.mlp.fc2 "
        "and 20 more"
    )


def test_without_the_library_nothing_is_tried(network, monkeypatch):
    monkeypatch.setattr(policies, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError), adapted(network, SETTINGS):
        raise ZeroDivisionError


def test_a_library_that_cannot_be_imported_is_told_with_its_reason(network, monkeypatch):
    monkeypatch.setattr(policies, "find_spec", lambda name: "installed")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError) as caught, adapted(network, SETTINGS):
        raise ZeroDivisionError
    assert str(caught.value) == (
        "train: {lora: …}, whose peft cannot be imported (import of peft halted; None in "
        "sys.modules), needs a package that is not installed\n"
        'hint: pip install "finetune-vision[lora]"'
    )
