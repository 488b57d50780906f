"""What is said of a processor: whether it computes bf16, and why not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from finetune.runtime.device import (
    BF16_INSTRUCTIONS,
    machine_facts,
    may_compute,
    plain_fp32,
)

X86 = {"amx_bf16": False, "avx512_bf16": False, "avx2": True}


@pytest.fixture
def torch_tells(monkeypatch: pytest.MonkeyPatch):
    """Set what torch says of the processor."""

    def tell(features: dict[str, bool]) -> None:
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda: features, raising=False)

    return tell


@pytest.mark.parametrize(
    ("features", "asked", "expected"),
    [
        (X86, BF16_INSTRUCTIONS, False),
        (X86 | {"avx512_bf16": True}, BF16_INSTRUCTIONS, True),
        (X86 | {"avx512_bf16": True}, ("amx_bf16",), False),
        ({"neon": True, "bf16": False}, BF16_INSTRUCTIONS, False),
        ({"neon": True, "bf16": True}, BF16_INSTRUCTIONS, True),
        ({"neon": True}, ("amx_bf16",), True),  # another architecture: nothing is known
        ({}, BF16_INSTRUCTIONS, True),
    ],
)
def test_instructions_are_those_that_torch_tells(torch_tells, features, asked, expected):
    torch_tells(features)
    assert may_compute(*asked) is expected


@pytest.mark.parametrize(("capability", "expected"), [("AVX2", False), ("AVX512", True)])
def test_an_older_torch_tells_by_the_vectors(monkeypatch, capability, expected):
    monkeypatch.delattr("torch.cpu.get_capabilities", raising=False)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert may_compute(*BF16_INSTRUCTIONS) is expected


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (X86, "this processor has no bf16 instructions"),
        (X86 | {"amx_bf16": True}, "bf16 does not pay for every network on cpu"),
    ],
)
def test_a_processor_has_no_fast_bf16_until_it_is_measured(torch_tells, features, reason):
    torch_tells(features)
    facts = machine_facts("cpu")
    assert (facts.has_fast_bf16, facts.bf16_reason) == (False, reason)


def test_fp32_on_a_gpu_is_fp32_for_a_while_and_then_as_before() -> None:
    def rules() -> list[object]:
        if hasattr(torch.backends.cudnn, "conv"):
            cudnn = torch.backends.cudnn
            places = (cudnn.conv, cudnn.rnn, torch.backends.cuda.matmul)
            return [place.fp32_precision for place in places]
        return [torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32]

    before = rules()
    with plain_fp32("cuda:0"):
        assert rules() in (["ieee", "ieee", "ieee"], [False, False])
    assert rules() == before
    with plain_fp32("cpu"):
        assert rules() == before


@pytest.mark.parametrize(
    ("architecture", "has_units"),
    [("gfx90a:sramecc+:xnack-", True), ("gfx1100", True), ("gfx1030", False), ("gfx906", False)],
)
def test_amds_gpus_are_known_by_their_architecture(monkeypatch, architecture, has_units):
    named = SimpleNamespace(gcnArchName=architecture)
    monkeypatch.setattr("torch.version.hip", "6.4")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a GPU")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: named)
    assert machine_facts("cuda:0").has_fast_bf16 is has_units
