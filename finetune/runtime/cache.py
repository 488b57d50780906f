"""A small cache of what was measured on this machine, shared by runs and processes.

It stands below `FINETUNE_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`. A cache that cannot be
read or written costs a measurement, never a run.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from finetune.errors import FinetuneError
from finetune.runtime.files import make_folder, write_text

__all__ = ["cache_folder", "remember"]


def cache_folder() -> Path:
    """Give the folder of the cache; it need not exist."""
    named = os.environ.get("FINETUNE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune"


def remember(what: str, key: str, measure: Callable[[], Mapping[str, float]]) -> dict[str, float]:
    """Give figures measured before under a key, or measure them and keep them.

    Args:
        what: Kind of figures: a folder of the cache.
        key: Everything they depend on.
        measure: Measures them.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    path = cache_folder() / what / f"{digest}.json"
    known = _read(path)
    if known is not None:
        return known
    figures = dict(measure())
    try:
        make_folder(path.parent)
        write_text(path, json.dumps(figures) + "\n")
    except FinetuneError:
        return figures
    return figures


def _read(path: Path) -> dict[str, float] | None:
    """Read figures; None where there are none that can be read."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in figures.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None
