"""The facts of this machine: the hub is asked only where nobody forbids it."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from finetune.doctor import gather
from finetune.doctor.attempts import Attempt
from finetune.doctor.facts import HubFacts, WeightsFacts
from finetune.model.facts import hub_cache_folder

THERE = {"huggingface_hub": Attempt(), "filelock": Attempt()}
FAILED = {name: Attempt("ImportError: no") for name in THERE}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The repositories that the hub was asked for; it answers."""
    asked: list[str] = []
    monkeypatch.setattr(gather, "ask_hub", asked.append)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return asked


def test_the_hub_is_asked_once(asked: list[str]) -> None:
    assert gather._hub(THERE, offline=False) == HubFacts()
    assert asked == ["timm/efficientnet_b0.ra_in1k"]


def test_without_a_network_the_reason_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert gather._hub(THERE, offline=False) == HubFacts(failure="tests have no network")


def test_the_hub_is_not_asked_offline(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert gather._hub(THERE, offline=True) == HubFacts(not_asked="--offline")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert gather._hub(THERE, offline=False) == HubFacts(not_asked="HF_HUB_OFFLINE is set")
    assert asked == []


def test_without_the_client_of_the_hub_nothing_is_asked(asked: list[str]) -> None:
    assert gather._hub(FAILED, offline=False) is None
    assert gather._hub({}, offline=False) is None
    assert asked == []


def test_what_is_cached_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    assert hub_cache_folder() == tmp_path
    file = tmp_path / "models--timm--b" / "snapshots" / "1" / "model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (tmp_path / "activations" / "store").mkdir(parents=True)
    (tmp_path / "activations" / "store" / "ids.bin").write_bytes(b"x" * 240)
    assert gather._cached(THERE) == WeightsFacts(("timm/b",), 1, 240)
    assert gather._cached(FAILED) == WeightsFacts(("timm/b",), None)


@pytest.mark.parametrize(
    ("text", "quota"), [("150000 100000\n", 1.5), ("max 100000\n", None), (None, None)]
)
def test_the_limit_of_a_container_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, quota: float | None
) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(gather, "_CPU_LIMIT", tmp_path / "cpu.max")
    assert gather._cpu_quota() == quota
