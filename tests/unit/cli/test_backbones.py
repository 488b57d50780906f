"""`finetune backbones` lists what there is to start from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.model.facts import load_facts

NUM_ARCHITECTURES = len(load_facts())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_json_has_the_fields_of_the_contract(call: Callable[..., Any]) -> None:
    (found,) = json.loads(call("backbones", "mobilenetv2_100", "--json").out)
    assert found == {
        "name": "mobilenetv2_100",
        "num_parameters": 3_504_872,
        "input_size": [3, 224, 224],
        "pretrained_tags": ["ra_in1k"],
        "licence": "apache-2.0",
        "cached": False,
        "licences": {"ra_in1k": "apache-2.0"},
        "cached_tags": [],
    }


def test_without_a_pattern_all_are_listed(call: Callable[..., Any]) -> None:
    assert len(json.loads(call("backbones", "--json").out)) == NUM_ARCHITECTURES


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("mobilenetv1_100", ["mobilenetv1_100", "mobilenetv1_100h"]),
        ("MobileNetV1_100", ["mobilenetv1_100", "mobilenetv1_100h"]),
        ("mobilenetv1_1?5", ["mobilenetv1_125"]),
        ("*et_b0.ra_*", ["efficientnet_b0"]),
    ],
)
def test_a_pattern_is_a_part_or_has_stars(
    pattern: str, names: list[str], call: Callable[..., Any]
) -> None:
    found = json.loads(call("backbones", pattern, "--json").out)
    assert [row["name"] for row in found] == names


def test_pretrained_leaves_out_what_has_no_weights(call: Callable[..., Any]) -> None:
    found = json.loads(call("backbones", "--pretrained", "--json").out)
    assert 0 < len(found) < NUM_ARCHITECTURES
    assert all(row["pretrained_tags"] for row in found)


@pytest.mark.parametrize("limit", ["1M", "1000k", "1000000", "0.001B", "1m"])
def test_max_params_is_a_number_with_a_unit(limit: str, call: Callable[..., Any]) -> None:
    found = json.loads(call("backbones", "--max-params", limit, "--json").out)
    assert found
    assert max(row["num_parameters"] for row in found) <= 1_000_000


def test_a_limit_that_is_no_number_is_refused(call: Callable[..., Any]) -> None:
    answer = call("backbones", "--max-params", "ten")
    assert answer.code == 2
    assert answer.err == (
        "error: --max-params ten is no number\nhint: write --max-params 10M or 500k\n"
    )


def test_a_pattern_that_fits_nothing_gets_the_nearest_name(call: Callable[..., Any]) -> None:
    answer = call("backbones", "resnett50")
    assert answer.code == 4
    assert answer.err == "error: no backbone matches 'resnett50'\nhint: did you mean resnet50?\n"


def test_cached_means_the_default_weights(cache: Path, call: Callable[..., Any]) -> None:
    snapshot = cache / "models--timm--mobilenetv2_100.ra_in1k" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    (found,) = json.loads(call("backbones", "mobilenetv2_100", "--json").out)
    assert found["cached"] is True
    assert found["cached_tags"] == ["ra_in1k"]


def test_the_table_says_what_is_cached_in_words(cache: Path, call: Callable[..., Any]) -> None:
    snapshot = cache / "models--timm--efficientnet_b0.ra4_e3600_r224_in1k" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    answer = call("backbones", "efficientnet_b0")
    assert answer.out.splitlines()[:2] == [
        "  name                      params  input  licence     weights  cached",
        "  efficientnet_b0            5.29M    224  apache-2.0        2  1 other",
    ]


def test_a_narrow_terminal_gets_fewer_columns(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert call("backbones", "mobilenetv2_100").out.splitlines() == [
        "  name             params  input  licence",
        "  mobilenetv2_100   3.50M    224  apache-2.0",
    ]
