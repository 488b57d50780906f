"""Checks of where pretrained weights can come from, and of what earlier runs left."""

from __future__ import annotations

from collections.abc import Iterator

from finetune.doctor.facts import Facts, Finding
from finetune.errors import join_names
from finetune.runtime.space import size_words

__all__ = ["check_cached", "check_hub"]


def check_hub(facts: Facts) -> Iterator[Finding]:
    """Check that pretrained weights can be had: from the hub, or from the cache."""
    hub = facts.hub
    if hub is None:
        return
    if hub.not_asked is None and hub.failure is None:
        yield Finding("hub", "ok", "the Hugging Face hub answers: weights can be downloaded")
        return
    state = f"out of reach ({hub.failure})" if hub.failure else f"not asked ({hub.not_asked})"
    message = f"the Hugging Face hub is {state}"
    if not facts.cached.repositories:
        yield Finding(
            "hub",
            "warning",
            f"{message}, and no weights are cached: they must come from a folder or a file",
            "finetune run --data photos --backbone local-dir:FOLDER",
        )
    elif hub.failure:
        message += ": weights come from the cache, a folder or a file"
        yield Finding("hub", "warning", message, "finetune backbones --pretrained")
    else:
        yield Finding("hub", "ok", message)


def check_cached(facts: Facts) -> Iterator[Finding]:
    """Check which weights and which activations of frozen layers are there already."""
    cached = facts.cached
    names = join_names(cached.repositories)
    message = f"weights are cached of {names}" if names else "no pretrained weights are cached"
    yield Finding("cached", "ok", message)
    if cached.num_stores:
        stores = "1 store" if cached.num_stores == 1 else f"{cached.num_stores} stores"
        size = size_words(cached.store_bytes)
        yield Finding("cached", "ok", f"{stores} of activations, {size}, can be used again")
