"""Another input than the weights were made for: size, channels, and what cannot be."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finetune.errors import BackboneError
from finetune.model.backbone import create_backbone
from finetune.model.create import create_model
from finetune.model.input import fit_input, preprocessing_of, sizes_near, takes_size, train_spec
from finetune.recipe.schema import Recipe
from finetune.types import InputRequest


def build(name: str, *, image_size: object = None, in_chans: object = None, **model: object):
    values = {"backbone": name, "pretrained": False, **model}
    values |= {"image_size": image_size, "in_chans": in_chans}
    return create_model(Recipe(model=values), num_classes=3)


def test_size_and_channels_are_those_of_the_weights_unless_asked_for() -> None:
    model = build("test_vit")
    assert model.preprocessing.input_size == (3, 160, 160)
    assert model.network.input_size == (3, 160, 160)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_another_size_serves_training_and_evaluation(name: str) -> None:
    model = build(name, image_size=[96, 64])
    assert model.preprocessing.input_size == (3, 96, 64)
    assert (model.train_spec.height, model.train_spec.width) == (96, 64)
    assert model.network(torch.zeros(2, 3, 96, 64)).shape == (2, 3)


def test_test_size_of_the_weights_gives_way_to_the_size_asked_for() -> None:
    backbone = create_backbone("resnet50.a1_in1k", pretrained=False)
    own = preprocessing_of(backbone)
    asked = preprocessing_of(backbone, InputRequest(image_size=(128, 128)))
    assert own.input_size == (3, 288, 288)
    assert train_spec(backbone, own).height == 224
    assert asked.input_size == (3, 128, 128)
    assert asked.mean == own.mean


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_other_channels_reach_the_network_and_its_normalisation(name: str, in_chans: int) -> None:
    model = build(name, in_chans=in_chans)
    assert model.preprocessing.input_size[0] == in_chans
    assert len(model.preprocessing.mean) == len(model.preprocessing.std) == in_chans
    assert model.network(torch.zeros(2, *model.network.input_size)).shape == (2, 3)


def test_mean_of_a_channel_that_the_weights_do_not_know_is_the_mean_of_theirs() -> None:
    preprocessing = preprocessing_of(
        create_backbone("resnet18", pretrained=False), InputRequest(in_chans=1)
    )
    assert preprocessing.mean == pytest.approx((sum((0.485, 0.456, 0.406)) / 3,))


def test_weights_are_carried_over_to_grey_images() -> None:
    backbone = create_backbone("test_resnet", pretrained=False).eval()
    request = InputRequest(in_chans=1)
    grey = fit_input(backbone, "test_resnet", request, pretrained=True, arguments={}).eval()
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), backbone(images.expand(-1, 3, -1, -1)))


def test_position_embeddings_are_resampled_and_the_rest_is_carried_over() -> None:
    backbone = create_backbone("test_vit", pretrained=False)
    request = InputRequest(image_size=(96, 96))
    small = fit_input(backbone, "test_vit", request, pretrained=True, arguments={})
    assert small.pos_embed.shape[1] < backbone.pos_embed.shape[1]
    assert torch.equal(small.blocks[0].attn.qkv.weight, backbone.blocks[0].attn.qkv.weight)
    assert small.pretrained_cfg.get("state_dict") is None


def test_a_weights_file_is_carried_over_as_well(tmp_path: Path) -> None:
    source = create_backbone("test_vit", pretrained=False)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    model = build(
        "test_vit",
        image_size=96,
        pretrained=True,
        weights=str(tmp_path / "weights.safetensors"),
    )
    assert torch.equal(
        model.network.backbone.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight
    )


@pytest.mark.slow
def test_an_encoder_gets_a_head_on_the_mean_of_its_features() -> None:
    model = build("qwen3_vit_88m_enc", image_size=64)
    assert model.network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    assert type(model.network.head) is torch.nn.Linear
    assert model.network.features(torch.zeros(1, 3, 64, 64)).shape == (1, 768)


def test_a_size_that_patches_do_not_divide_names_sizes_that_they_do() -> None:
    with pytest.raises(BackboneError) as caught:
        build("test_vit", image_size=100)
    assert caught.value.message == (
        "test_vit cannot take images of 100 x 100 px: "
        "Input height (100) should be divisible by patch size (16)."
    )
    assert caught.value.hint == (
        "model.image_size can be 96, 112, 160 x 160 px (the last is the size of its weights)"
    )


def test_weights_that_hold_for_one_size_say_so() -> None:
    backbone = create_backbone("mixer_s32_224", pretrained=False)
    request = InputRequest(image_size=(320, 320))
    with pytest.raises(BackboneError) as caught:
        fit_input(backbone, "mixer_s32_224", request, pretrained=True, arguments={})
    assert caught.value.message == (
        "mixer_s32_224 cannot take images of 320 x 320 px: its weights hold for one size"
    )
    assert caught.value.hint == (
        "model.image_size can be 224 x 224 px (the last is the size of its weights)"
    )


@pytest.mark.slow
def test_an_image_too_small_for_a_convolutional_network_is_refused() -> None:
    with pytest.raises(BackboneError, match="cannot take images of 8 x 8 px"):
        build("vgg11", image_size=8)


def test_sizes_nearby_are_found_without_computing() -> None:
    assert sizes_near("test_vit", (100, 100)) == (96, 112)
    assert takes_size("test_vit", (96, 96))
    assert not takes_size("test_vit", (100, 100))
