"""A table of facts about every architecture of timm, so that listing them costs milliseconds.

`facts.json` stands beside this file, one architecture a line, made by `python -m
finetune.model.facts`, which builds each one on the meta device: no weights, no network. Reading it
imports neither timm nor torch. Whether weights are cached is looked up when asked, in the folder of
the Hugging Face cache. Figures are those of the default weights: parameters include the classifier.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from finetune.runtime.files import write_text

__all__ = [
    "ArchitectureFacts",
    "PretrainedTag",
    "cached_repositories",
    "cached_tags",
    "describe_architecture",
    "format_facts",
    "hub_cache_folder",
    "load_facts",
    "write_facts",
]

_FILE = Path(__file__).with_name("facts.json")
_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True, slots=True)
class PretrainedTag:
    """One set of pretrained weights of an architecture.

    Attributes:
        name: The tag: what follows the dot in `efficientnet_b0.ra_in1k`.
        licence: As timm states it; None where it states none.
        repository: Its repository on the Hugging Face hub; None where it has only an address.
    """

    name: str
    licence: str | None
    repository: str | None


@dataclass(frozen=True, slots=True)
class ArchitectureFacts:
    """What is known of one architecture without building it.

    Attributes:
        name: What `timm.create_model` takes.
        num_parameters: All parameters, the default classifier included.
        input_size: Channels, height and width in pixels of the default weights.
        tags: Pretrained weights, the default first; empty where there are none.
    """

    name: str
    num_parameters: int
    input_size: tuple[int, int, int]
    tags: tuple[PretrainedTag, ...]

    @property
    def licence(self) -> str | None:
        """The licence of the default weights; None where timm states none."""
        return self.tags[0].licence if self.tags else None


@cache
def load_facts() -> tuple[ArchitectureFacts, ...]:
    """Read the table: every architecture in timm's order."""
    rows = json.loads(_FILE.read_text(encoding="utf-8"))["architectures"]
    return tuple(_read_row(*row) for row in rows)


def cached_tags(facts: ArchitectureFacts, *, repositories: frozenset[str]) -> tuple[str, ...]:
    """Name the pretrained weights of an architecture that need no network.

    Args:
        facts: The architecture.
        repositories: What `cached_repositories` found.
    """
    return tuple(tag.name for tag in facts.tags if tag.repository in repositories)


def cached_repositories(folder: Path | None = None) -> frozenset[str]:
    """Name the repositories of the Hugging Face cache that hold a file of weights.

    Args:
        folder: The cache; None for the one that the environment names.
    """
    folder = folder or hub_cache_folder()
    if not folder.is_dir():
        return frozenset()
    return frozenset(
        entry.name.removeprefix("models--").replace("--", "/")
        for entry in folder.glob("models--*--*")
        if any(file.suffix in _WEIGHT_FILES for file in entry.glob("snapshots/*/*"))
    )


def format_facts(table: Iterable[ArchitectureFacts], *, timm_version: str) -> str:
    """Write the table as JSON, one architecture a line, so that a change can be reviewed."""
    lines = ",\n".join(json.dumps(_write_row(facts), separators=(",", ":")) for facts in table)
    head = f'{{"schema_version": 1, "timm_version": "{timm_version}", "architectures": ['
    return f"{head}\n{lines}\n]}}\n"


def describe_architecture(name: str) -> ArchitectureFacts:
    """Build an architecture on the meta device and say what the table holds of it."""
    from finetune.model.backbone import build_on_meta, pretrained_configs

    model: Any = build_on_meta(name)
    channels, height, width = model.pretrained_cfg["input_size"]
    return ArchitectureFacts(
        name=name,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        input_size=(channels, height, width),
        tags=tuple(
            PretrainedTag(tag, config.get("license"), config.get("hf_hub_id"))
            for tag, config in pretrained_configs(name).items()
        ),
    )


def write_facts(path: Path = _FILE) -> int:
    """Describe every architecture and write the table; takes minutes.

    Returns:
        How many architectures it holds.
    """
    from finetune.model.backbone import list_architectures

    table = [describe_architecture(name) for name in list_architectures()]
    write_text(path, format_facts(table, timm_version=metadata.version("timm")))
    return len(table)


def _read_row(
    name: str, num_parameters: int, input_size: list[int], tags: list[list[str | None]]
) -> ArchitectureFacts:
    """Read a line of the table; a repository that is timm's own is not written out."""
    channels, height, width = input_size
    return ArchitectureFacts(
        name,
        num_parameters,
        (channels, height, width),
        tuple(
            PretrainedTag(str(tag), licence, (place[0] or None) if place else f"timm/{name}.{tag}")
            for tag, licence, *place in tags
        ),
    )


def _write_row(facts: ArchitectureFacts) -> list[object]:
    """Write a line of the table: the inverse of `_read_row`."""
    tags: list[list[str | None]] = []
    for tag in facts.tags:
        is_plain = tag.repository == f"timm/{facts.name}.{tag.name}"
        tags.append([tag.name, tag.licence, *([] if is_plain else [tag.repository or ""])])
    return [facts.name, facts.num_parameters, list(facts.input_size), tags]


def hub_cache_folder() -> Path:
    """Find the Hugging Face cache as its own client does, without importing that."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser()
    home = os.environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).expanduser() / "huggingface" / "hub"


if __name__ == "__main__":
    print(f"{write_facts()} architectures written to {_FILE}")
