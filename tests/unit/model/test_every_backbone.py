"""A sample of timm that has every kind of head and of network; tests/bench/backbones.py has all."""

from collections.abc import Iterator

import pytest
from every_backbone import TimmAlone, check_shape, check_step, timm_alone

SAMPLE = (
    "caformer_s18",  # a head of two layers; no groups of timm's
    "coat_tiny",
    "cpubone_nano",  # a LinearLayer
    "crossvit_tiny_240",  # one linear layer a branch
    "cs3darknet_focus_s",
    "csatv2",  # no groups of timm's
    "deit_tiny_distilled_patch16_224",  # a pair
    "dla46x_c",  # a convolution
    "edgenext_xx_small",
    "efficientformerv2_s0",  # a pair in a convolutional hybrid
    "efficientvim_m1_dist",  # four branches, twice
    "efficientvit_m0",
    "fastvit_t8",
    "fbnetc_100",  # another epsilon where weights are loaded
    "gmlp_ti16_224",
    "hgnetv2_b0",
    "inception_next_atto",
    "iformer_t",  # a RepVitClassifier
    "levit_128s",  # a pair of NormLinear
    "mobilenetv3_small_050",
    "pit_ti_224",  # no groups of timm's
    "poolformerv2_s12",  # no groups of timm's
    "pvt_v2_b0",
    "qwen3_vit_88m_enc",  # an encoder
    "rdnet_tiny",  # refuses coarse groups
    "regnetx_002",
    "repghostnet_050",
    "resnetv2_18",  # a convolution after normalisation
    "rexnet_100",
    "sequencer2d_s",  # a ClassifierHead
    "starnet_s050",
    "swin_tiny_patch4_window7_224",
    "test_byobnet",
    "test_coatnet",
    "test_convnext",
    "test_mambaout",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "xcit_nano_12_p8_224",
)


@pytest.fixture(scope="module")
def alone() -> Iterator[TimmAlone]:
    with timm_alone() as process:
        yield process


def test_sample_has_forty_backbones() -> None:
    assert len(set(SAMPLE)) == 40


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_depths_are_whole_freezing_is_what_it_says_and_the_configuration_returns(name: str) -> None:
    facts = check_shape(name)
    assert facts["groups"] >= 2
    assert facts["blocks"] >= facts["groups"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_step_moves_nothing_frozen_and_timm_alone_gives_the_same_logits(
    name: str, alone: TimmAlone
) -> None:
    assert check_step(name, alone)["loss"] > 0
