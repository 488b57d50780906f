"""The depth map covers every parameter once, from stem to head."""

import pytest
import timm

from finetune.components.heads import MlpHead
from finetune.model.backbone import build_on_meta
from finetune.model.depth import describe_parameters, num_depths
from finetune.model.network import Network
from tests.unit.model.conftest import MakeNetwork

NAMES = timm.list_models("test_*")


def test_there_are_small_architectures_to_test() -> None:
    assert len(NAMES) == 18


@pytest.mark.parametrize("name", NAMES)
def test_each_parameter_is_described_once(make_network: MakeNetwork, name: str) -> None:
    network = make_network(name)
    params = describe_parameters(network)
    assert [param.name for param in params] == [name for name, _ in network.named_parameters()]
    assert {param.depth for param in params} == set(range(num_depths(params) + 1))


@pytest.mark.parametrize("name", NAMES)
def test_head_is_the_last_depth_and_nothing_else(make_network: MakeNetwork, name: str) -> None:
    params = describe_parameters(make_network(name))
    last = max(param.depth for param in params)
    assert {param.depth for param in params if param.is_head} == {last}
    assert all(param.is_head for param in params if param.depth == last)


def test_resnet_has_a_stem_and_four_stages(make_network: MakeNetwork) -> None:
    params = describe_parameters(make_network("test_resnet"))
    assert num_depths(params) == 5
    assert [p.depth_name for p in params if p.name.endswith("conv1.0.weight")] == ["stem"]


def test_batch_norm_parameters_are_norms(make_network: MakeNetwork) -> None:
    params = {param.name: param for param in describe_parameters(make_network("test_resnet"))}
    assert params["backbone.bn1.weight"].is_norm
    assert not params["backbone.layer1.0.conv1.weight"].is_norm


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_vit", {"backbone.cls_token", "backbone.pos_embed"}),
        ("coat_tiny", {f"backbone.cls_token{number}" for number in (1, 2, 3, 4)}),
        ("test_resnet", set()),
    ],
)
def test_what_an_architecture_leaves_out_of_weight_decay_is_known(
    make_network: MakeNetwork, name: str, expected: set[str]
) -> None:
    params = describe_parameters(make_network(name))
    assert {param.name for param in params if param.is_undecayed} == expected


def test_own_head_is_the_head(make_network: MakeNetwork) -> None:
    params = describe_parameters(make_network("test_resnet", head=MlpHead(hidden=8)))
    assert all(param.is_head == param.name.startswith("head.") for param in params)
    assert sum(param.is_head for param in params) == 6


def test_architecture_without_groups_falls_back_to_its_features(make_network: MakeNetwork) -> None:
    network = make_network("poolformer_s12")
    assert not hasattr(network.backbone, "group_matcher")
    params = describe_parameters(network)
    assert num_depths(params) >= 4
    depths = [param.depth for param in params]
    assert depths == sorted(depths)


@pytest.mark.parametrize(
    ("name", "last", "depths"),
    [
        ("swin_tiny_patch4_window7_224", "norm.weight", 5),
        ("convnext_atto", "head.norm.weight", 5),
        ("beit_base_patch16_224", "fc_norm.weight", 13),
        ("vit_tiny_patch16_224", "norm.weight", 13),
        ("mobilenetv3_small_100", "conv_head.weight", 7),
    ],
)
def test_what_no_pattern_of_timm_names_is_no_depth_of_its_own(
    name: str, last: str, depths: int
) -> None:
    backbone = build_on_meta(name, num_classes=3)
    size = tuple(backbone.pretrained_cfg["input_size"])
    params = describe_parameters(Network(backbone, num_classes=3, input_size=size))
    by_name = {param.name: param for param in params}
    assert num_depths(params) == depths
    assert by_name[f"backbone.{last}"].depth == depths - 1
    assert sum(param.depth == depths - 1 for param in params) > 2
