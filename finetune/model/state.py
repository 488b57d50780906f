"""Whether a file's tensors are those of a timm model, its classifier aside."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["fit_state"]

_PREFIXES = ("backbone.", "model.")


def fit_state(
    model: Any, state: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Compare a state dict with a timm model, whose classifier may be another.

    Args:
        model: A timm model.
        state: Tensors by name, as read from a file; what others wrap a backbone in, and our own
            models with another head, have a prefix before its names.

    Returns:
        The tensors that the model can take, and the sorted names, outside the classifier, that are
        missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    classifier = tuple(_classifier_prefixes(model))
    state = _without_prefix(state, {key for key in wanted if not key.startswith(classifier)})
    differing = [
        key
        for key in sorted(wanted.keys() | state.keys())
        if not key.startswith(classifier)
        and not key.endswith("num_batches_tracked")
        and (key not in wanted or key not in state or wanted[key].shape != state[key].shape)
    ]
    fitting = {
        key: value
        for key, value in state.items()
        if key in wanted and wanted[key].shape == value.shape
    }
    return fitting, differing


def _without_prefix(
    state: Mapping[str, torch.Tensor], wanted: Collection[str]
) -> Mapping[str, torch.Tensor]:
    """Give the tensors of the backbone alone, where a file holds it within something larger."""
    if any(key in wanted for key in state):
        return state
    for prefix in _PREFIXES:
        inner = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        if inner:
            return inner
    return state


def _classifier_prefixes(model: Any) -> Iterator[str]:
    """Name the classifier's parameters by prefix, from the model and from its configuration."""
    named = model.pretrained_cfg.get("classifier") or ()
    for name in (named,) if isinstance(named, str) else named:
        yield f"{name}."
    found = model.get_classifier() if hasattr(model, "get_classifier") else ()
    wanted = {id(module) for module in (found if isinstance(found, (tuple, list)) else (found,))}
    for name, module in model.named_modules():
        if id(module) in wanted and name:
            yield f"{name}."
