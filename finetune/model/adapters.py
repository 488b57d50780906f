"""Adapters of low rank beside layers of a network (LoRA, 2106.09685): put on, merged, taken off.

The door to peft, which alone makes them. They stand in a network for the length of one stage:
outside of it the module tree, its names and what is saved are timm's own. An adapter is put only
beside a layer that a forward pass calls as a module: some timm blocks, and torch's own attention,
use `layer.weight` directly, where an adapter would be counted, trained and never heard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from finetune.errors import MissingExtraError, Problem, RecipeError, join_names
from finetune.runtime.seeds import own_randomness

if TYPE_CHECKING:
    from finetune.components.policies import LoraSettings
    from finetune.model.network import Network

__all__ = ["adapted", "find_targets", "plain_state"]


@contextmanager
def adapted(
    network: Network, settings: LoraSettings, *, seed: int = 0, place: str = "train"
) -> Iterator[None]:
    """Put adapters into a network for a `with` block; then it is as before, without them.

    A new adapter adds nothing: B is zero, and A random (He's uniform, as in the paper's code). The
    base layers' own weights are never written to; `plain_state` is what keeps what was learnt.

    Args:
        network: Changed in place; on leaving, its layers are the same objects as before.
        settings: Rank, alpha, dropout and targets.
        seed: What is random in the adapters follows from it; no other randomness is disturbed.
        place: Dotted path of the policy in the recipe, for the error.

    Raises:
        MissingExtraError: peft is not installed, or not together with what it needs.
        RecipeError: There is no layer to adapt.
    """
    settings.check()
    peft = _import_peft()
    targets = find_targets(network, settings, place=place)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.scaled_alpha,  # peft declares an int and only divides it
        lora_dropout=settings.dropout,
        # Careful: a list would match by the end of a name; this matches whole names alone.
        target_modules="|".join(map(re.escape, targets)),
    )
    try:
        with own_randomness():  # peft makes adapters on the CPU, then moves them
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, network)
        yield
    finally:
        _take_off(network)


def find_targets(
    network: Network, settings: LoraSettings, *, place: str = "train"
) -> tuple[str, ...]:
    """Name the layers that adapters go to, in the network's order.

    Linear layers and plain convolutions outside the head are asked for, by a forward pass of one
    blank image, whether they are called. `auto` takes the linear maps of channels among them:
    linear layers and 1 by 1 convolutions.

    Raises:
        RecipeError: None is found; the hint names what there is.
    """
    found = _called(network, _candidates(network))
    if settings.targets == "auto":
        targets = tuple(name for name, module in found.items() if _is_pointwise(module))
        message = "no linear layer and no 1 by 1 convolution outside the head can have an adapter"
    else:
        targets = tuple(name for name in found if re.search(settings.targets, name))
        message = f"targets {settings.targets!r} finds none of the layers that can have an adapter"
    if not targets:
        none = "no layer of this backbone can; write train: {last: 1}"
        there = f"there are {join_names(list(found))}" if found else none
        raise RecipeError([Problem(place, message)], hint=there)
    return targets


@torch.no_grad()
def plain_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Give the state of a module as if its adapters were merged: plain names, W + alpha/rank · B·A.

    Args:
        module: With adapters or without; it is not changed.

    Returns:
        By name, in the order of the module without adapters; what no adapter touches is shared
        with the module, not copied.
    """
    layers = dict(_adapter_layers(module))
    plain: dict[str, torch.Tensor] = {}
    for name, tensor in module.state_dict().items():
        owner, _, inner = name.rpartition(".base_layer.")  # timm's DLA has a base_layer of its own
        if owner not in layers:
            if not any(name.startswith(f"{layer}.") for layer in layers):
                plain[name] = tensor
        elif inner == "weight":
            (adapter,) = layers[owner].active_adapters
            plain[f"{owner}.weight"] = tensor + layers[owner].get_delta_weight(adapter)
        else:
            plain[f"{owner}.{inner}"] = tensor
    return plain


def _import_peft() -> Any:
    """Import peft, which imports transformers; versions of the two that disagree are told."""
    try:
        import peft
    except ImportError as error:
        reason = str(error).partition("\n")[0]
        what = f"train: {{lora: …}}, whose peft cannot be imported ({reason}),"
        raise MissingExtraError(what, extra="lora") from error
    return peft


def _take_off(network: nn.Module) -> None:
    """Put the base layers back in place."""
    for name, layer in list(_adapter_layers(network)):
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, layer.base_layer)
    network.__dict__.pop("peft_config", None)


def _adapter_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Find the layers that peft wrapped, told by what they have, without importing it."""
    for name, inner in module.named_modules():
        if hasattr(inner, "lora_A") and hasattr(inner, "base_layer"):
            yield name, inner


def _candidates(network: Network) -> dict[str, nn.Module]:
    """Name the layers outside the head whose adapter could be merged, and that have one name."""
    head = {id(inner) for module in network.head_modules() for inner in module.modules()}
    names: dict[int, list[str]] = {}
    for name, module in network.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(name)
    return {
        name: module
        for name, module in network.named_modules()
        if _is_mergeable(module) and id(module) not in head and len(names[id(module)]) == 1
    }


def _is_mergeable(module: nn.Module) -> bool:
    """Whether a layer is the linear map of its weight: a subclass may compute otherwise."""
    if "weight" not in dict(module.named_parameters(recurse=False)):  # such as under weight_norm
        return False
    if isinstance(module, nn.Conv2d):
        is_plain = module.groups == 1 and max(module.dilation) == 1
        return type(module) is nn.Conv2d and is_plain and module.padding_mode == "zeros"
    return type(module) is nn.Linear


def _is_pointwise(module: nn.Module) -> bool:
    """Whether a candidate maps channels at one place: no convolution of several pixels."""
    return not isinstance(module, nn.Conv2d) or module.kernel_size == (1, 1)


@torch.no_grad()
def _called(network: Network, candidates: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Keep the layers that a forward pass of one blank image calls as modules."""
    called: set[int] = set()
    modes = [(module, module.training) for module in network.modules()]
    hooks = [
        module.register_forward_hook(lambda layer, *_: called.add(id(layer)))
        for module in candidates.values()
    ]
    weight = next(network.parameters())
    blank = torch.zeros(1, *network.input_size, device=weight.device, dtype=weight.dtype)
    try:
        with own_randomness(str(weight.device)):
            network.eval()(blank)
    finally:
        for hook in hooks:
            hook.remove()
        for module, was_training in modes:
            module.training = was_training
    return {name: module for name, module in candidates.items() if id(module) in called}
