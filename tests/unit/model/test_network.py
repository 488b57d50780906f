"""The network: heads replaced, features, a fitted head put in."""

import pytest
import torch

from finetune.components.heads import CosineHead, LinearHead, MlpHead
from finetune.errors import BackboneError, RecipeError
from finetune.model.backbone import create_backbone
from finetune.model.family import find_family
from finetune.model.network import build_network
from tests.unit.model.conftest import MakeNetwork


@pytest.mark.parametrize("head", [None, MlpHead(hidden=8), CosineHead()])
def test_logits_have_one_column_a_class(make_network: MakeNetwork, head: object) -> None:
    network = make_network("test_vit", head=head, num_classes=5).eval()
    assert network(torch.zeros(2, 3, 160, 160)).shape == (2, 5)


@pytest.mark.parametrize(
    "name",
    [
        "test_vit",
        "test_resnet",
        "test_efficientnet",
        "test_convnext",
        "deit_tiny_distilled_patch16_224",  # a pair
        "levit_128s",  # a pair behind normalisations
        "crossvit_tiny_240",  # one layer a branch
        "efficientvim_m1",  # four branches in a sum whose weights are learned
        "repvit_m0_9",  # its own class
        "caformer_s18",  # two layers
        "resnetv2_50x1_bit",  # a convolution
    ],
)
def test_fitted_head_is_linear_in_what_enters_its_last_layers(
    make_network: MakeNetwork, name: str
) -> None:
    network = make_network(name).eval()
    images = torch.randn(2, *network.input_size)
    if name == "efficientvim_m1":
        torch.nn.init.normal_(network.backbone.weights)
    with torch.no_grad():
        inputs = network.head_inputs(images)
        weight, bias = torch.randn(3, inputs.shape[1]), torch.randn(3)
        network.set_linear_head(weight, bias)
        logits = network(images)
    torch.testing.assert_close(logits, inputs @ weight.T + bias, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("test_resnet", 48 + 192 + 96),  # of its stages
        ("test_vit", 3 * 64),  # of its blocks
        ("test_efficientnet", 32 + 48 + 256),  # the last widened by the head's own convolution
    ],
)
def test_features_of_several_depths_stand_side_by_side(
    make_network: MakeNetwork, name: str, width: int
) -> None:
    network = make_network(name, head=LinearHead(depths=3)).eval()
    images = torch.randn(2, *network.input_size)
    with torch.no_grad():
        features = network.features(images)
        last = make_network(name).eval().features(images)
        weight, bias = torch.randn(3, width), torch.randn(3)
        network.set_linear_head(weight, bias)
        logits = network(images)
    assert features.shape == (2, width)
    torch.testing.assert_close(features[:, -last.shape[1] :], last)
    torch.testing.assert_close(logits, features @ weight.T + bias, atol=2e-4, rtol=2e-4)


def test_more_depths_than_there_are_get_a_sentence(make_network: MakeNetwork) -> None:
    with pytest.raises(BackboneError) as caught:
        make_network("test_resnet", head=LinearHead(depths=9))
    assert caught.value.message == "head.depths is 9, but ResNet gives features of 5 depths"
    assert caught.value.hint == "--set model.head.depths=5"


def test_head_of_several_layers_refuses_a_fitted_one(make_network: MakeNetwork) -> None:
    network = make_network("test_resnet", head=MlpHead(hidden=8))
    with pytest.raises(RecipeError, match="solver: probe fits a linear head") as caught:
        network.set_linear_head(torch.zeros(3, 96), torch.zeros(3))
    assert "train the head by gradient" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("test_resnet", "conv"),
        ("test_efficientnet", "conv"),
        ("test_convnext", "convnext"),
        ("test_vit", "vit"),
        ("test_maxvit", "hybrid"),
        ("test_nfnet", "convnext"),
    ],
)
def test_family_is_told_from_the_modules(make_network: MakeNetwork, name: str, family: str) -> None:
    assert find_family(make_network(name)) == family


def test_narrow_strided_convolution_keeps_channels_first() -> None:
    from timm.models.resnet import BasicBlock, ResNet

    from finetune.model.family import describe_backbone
    from finetune.model.input import preprocessing_of
    from finetune.model.network import Network

    narrow = ResNet(BasicBlock, [1, 1, 1, 1], channels=(8, 16, 24, 32), num_classes=3)
    narrow.pretrained_cfg = {"input_size": (3, 64, 64)}
    facts = describe_backbone(
        Network(narrow, num_classes=3, input_size=(3, 64, 64)), preprocessing_of(narrow)
    )
    assert facts.family == "conv"
    assert facts.is_narrow
    assert not facts.prefers_channels_last("cpu")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("caformer_s18", ("head.fc.fc1.weight", "head.fc.norm.weight")),
        ("levit_128s", ("head.bn.running_mean", "head_dist.bn.running_var")),
        ("repvit_m0_9", ("head.head.bn.running_mean",)),
    ],
)
def test_what_is_pretrained_in_a_head_and_names_no_class_stays(
    name: str, kept: tuple[str, ...]
) -> None:
    backbone = create_backbone(name, pretrained=False)
    before = {}
    for one in kept:
        values = backbone.state_dict()[one]
        values.uniform_()
        before[one] = values.clone()
    size = tuple(backbone.pretrained_cfg["input_size"])
    network = build_network(backbone, LinearHead(), num_classes=3, input_size=size)
    state = network.backbone.state_dict()
    assert all(state[one].equal(before[one]) for one in kept)


def test_a_classifier_of_as_many_classes_is_a_new_one() -> None:
    backbone = create_backbone("test_resnet", pretrained=False)
    before = backbone.fc.weight.clone()
    build_network(backbone, LinearHead(), num_classes=len(before), input_size=(3, 160, 160))
    assert not backbone.fc.weight.equal(before)
