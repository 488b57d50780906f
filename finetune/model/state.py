"""Whether a file's tensors are those of a timm model, its classifier aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["fit_state"]


def fit_state(
    model: Any, state: Mapping[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Compare a state dict with a timm model, whose classifier may be another.

    Args:
        model: A timm model.
        state: Tensors by name, as read from a file.

    Returns:
        The tensors that the model can take, and the sorted names, outside the classifier, that are
        missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    classifier = tuple(_classifier_prefixes(model))
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
