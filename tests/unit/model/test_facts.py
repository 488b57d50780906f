"""The table of facts about architectures is current, and is written as it is read."""

import random
from pathlib import Path

import pytest

from finetune.model.facts import (
    ArchitectureFacts,
    PretrainedTag,
    cached_repositories,
    cached_tags,
    describe_architecture,
    format_facts,
    load_facts,
)

NUM_SAMPLED = 10
SMALL = 60_000_000  # parameters; the largest take seconds to build


def test_the_table_names_what_timm_names() -> None:
    from finetune.model.backbone import list_architectures

    assert [facts.name for facts in load_facts()] == list(list_architectures())


@pytest.mark.slow
def test_a_sample_built_anew_agrees_with_the_table() -> None:
    small = [facts for facts in load_facts() if facts.num_parameters < SMALL]
    sample = random.Random(0).sample(small, NUM_SAMPLED)
    assert [describe_architecture(facts.name) for facts in sample] == sample


def test_the_weights_of_every_architecture_agree_with_timm() -> None:
    from finetune.model.backbone import pretrained_configs

    found = {facts.name: [tag.name for tag in facts.tags] for facts in load_facts()}
    assert found == {name: list(pretrained_configs(name)) for name in found}


def test_the_table_is_written_as_it_is_read() -> None:
    from finetune.model import facts as module

    text = Path(module.__file__).with_name("facts.json").read_text(encoding="utf-8")
    version = text.split('"timm_version": "')[1].split('"')[0]
    assert format_facts(load_facts(), timm_version=version) == text
    assert len(text.encode()) < 300_000


def test_the_licence_is_that_of_the_default_weights() -> None:
    tags = (PretrainedTag("a", "mit", "timm/x.a"), PretrainedTag("b", None, None))
    assert ArchitectureFacts("x", 1, (3, 8, 8), tags).licence == "mit"
    assert ArchitectureFacts("x", 1, (3, 8, 8), ()).licence is None


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with weights of one repository and only a configuration of another."""
    for name, file in (("timm--x.a", "model.safetensors"), ("timm--x.b", "config.json")):
        snapshot = tmp_path / f"models--{name}" / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        (snapshot / file).write_bytes(b"")
    return tmp_path


def test_a_repository_is_cached_where_its_weights_are(cache: Path) -> None:
    assert cached_repositories(cache) == {"timm/x.a"}


def test_no_cache_holds_no_repository(tmp_path: Path) -> None:
    assert cached_repositories(tmp_path / "absent") == frozenset()


@pytest.mark.parametrize(
    ("variable", "below"),
    [
        ("HF_HUB_CACHE", "."),
        ("HUGGINGFACE_HUB_CACHE", "."),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ],
)
def test_the_cache_is_found_where_the_environment_says(
    variable: str, below: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    snapshot = tmp_path / below / "models--timm--y.z" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert cached_repositories() == {"timm/y.z"}


def test_only_tags_with_a_cached_repository_are_cached() -> None:
    tags = (PretrainedTag("a", "mit", "timm/x.a"), PretrainedTag("b", "mit", None))
    facts = ArchitectureFacts("x", 1, (3, 8, 8), tags)
    assert cached_tags(facts, repositories=frozenset({"timm/x.a"})) == ("a",)
