"""What goes into a network: taken from its weights, unless another size or channels are asked for.

Whether an architecture takes an input is not looked up, it is tried: on the network itself with one
blank image, and for the sizes to propose instead on the meta device, which computes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import ValidationError

from finetune.components.preprocess import InputSpec, Preprocessing
from finetune.errors import BackboneError, join_names
from finetune.model.backbone import (
    BUILD_FAILURES,
    TimmModel,
    build_on_meta,
    data_config,
    rebuild_backbone,
)
from finetune.types import InputRequest

if TYPE_CHECKING:
    from finetune.model.network import Network

__all__ = [
    "fit_input",
    "preprocessing_of",
    "require_input",
    "sizes_near",
    "takes_size",
    "train_spec",
]

_STEPS = (32, 28, 16, 14)  # pixels: what strides, patches and windows of timm's networks divide by
# What architectures raise on a size that they cannot take.
_UNFIT = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


def preprocessing_of(model: TimmModel, request: InputRequest | None = None) -> Preprocessing:
    """Take the preprocessing of a model from its weights' configuration.

    The size is the one the weights were evaluated at (`test_input_size`) where they name one
    (FixRes, 1906.06423), and where no other is asked for.

    Raises:
        BackboneError: The weights want an input that this package cannot give.
    """
    config = _config(model, request or InputRequest(), is_test=True)
    try:
        return Preprocessing.from_data_config(config)
    except ValidationError as error:
        raise BackboneError(
            f"the weights want input {tuple(config['input_size'])}, which cannot be given: "
            f"{error.errors()[0]['msg']}"
        ) from error


def train_spec(
    model: TimmModel, preprocessing: Preprocessing, request: InputRequest | None = None
) -> InputSpec:
    """Say what a training image must be: as evaluation, at the size the weights trained at."""
    config = _config(model, request or InputRequest(), is_test=False)
    _, height, width = config["input_size"]
    return replace(preprocessing.spec, height=int(height), width=int(width))


def _config(model: TimmModel, request: InputRequest, *, is_test: bool) -> dict[str, Any]:
    """Give timm's data configuration for the input asked for."""
    config = data_config(model, is_test=is_test)
    channels, *size = config["input_size"]
    return {**config, "input_size": (request.in_chans or channels, *(request.image_size or size))}


def fit_input(
    model: TimmModel,
    name: str,
    request: InputRequest,
    *,
    pretrained: bool,
    arguments: Mapping[str, Any],
) -> TimmModel:
    """Make a model take the input asked for, its weights carried over by timm.

    Args:
        model: From `create_backbone`; most of timm's convolutional networks take any size.
        name: What it was created from.
        request: Size and channels; what is None stays as the weights have it.
        pretrained: Whether there are weights to carry over.
        arguments: What it was created with.

    Raises:
        BackboneError: The architecture cannot take that input; the hint says what it takes.
    """
    channels, *size = model.pretrained_cfg["input_size"]
    changes: dict[str, Any] = {}
    if request.in_chans not in (None, channels):
        changes["in_chans"] = request.in_chans
    if model.pretrained_cfg.get("fixed_input_size") and request.image_size not in (None, (*size,)):
        changes["img_size"] = request.image_size
    if not changes:
        return model
    try:
        return rebuild_backbone(
            model, name, pretrained=pretrained, arguments={**arguments, **changes}
        )
    except BUILD_FAILURES as error:
        if request.image_size is None or "in_chans" in str(error):
            raise BackboneError(
                f"{name} cannot take images of {request.in_chans} channels: {_first_line(error)}",
                hint=f"leave model.in_chans out: its weights take {channels}",
            ) from error
        raise _unfit_size(name, request.image_size, error) from error


@torch.no_grad()
def require_input(network: Network, name: str) -> None:
    """Let a network see one blank image of its input's size.

    Raises:
        BackboneError: It cannot take it; the hint names sizes nearby that it can.
    """
    _, height, width = network.input_size
    was_training = network.training
    try:
        network.eval()(torch.zeros(1, *network.input_size))
    except _UNFIT as error:
        raise _unfit_size(name, (height, width), error) from error
    finally:
        network.train(was_training)


@torch.no_grad()
def takes_size(name: str, image_size: tuple[int, int]) -> bool:
    """Whether an architecture can be built for, and computes on, images of a size in pixels."""
    try:
        model = build_on_meta(name)
        if model.pretrained_cfg.get("fixed_input_size"):
            model = build_on_meta(name, img_size=image_size)
        model.eval()(torch.zeros(1, model.pretrained_cfg["input_size"][0], *image_size).to("meta"))
    except _UNFIT:
        return False
    return True


def sizes_near(name: str, image_size: tuple[int, int]) -> tuple[int, ...]:
    """Find the nearest square sizes, in pixels, below and above, that an architecture takes."""
    side = max(image_size)
    below = sorted({side // step * step for step in _STEPS} - {0, side}, reverse=True)
    above = sorted({-(-side // step) * step for step in _STEPS} - {side})
    found = (
        next((size for size in sizes if takes_size(name, (size, size))), None)
        for sizes in (below, above)
    )
    return tuple(size for size in found if size is not None)


def _unfit_size(name: str, image_size: tuple[int, int], error: Exception) -> BackboneError:
    """Say that an architecture cannot take images of a size, and which sizes it takes."""
    _, *own = build_on_meta(name).pretrained_cfg["input_size"]
    is_of_weights = "state_dict" in str(error)  # such as a mixer's, whose layers mix all places
    why = "its weights hold for one size" if is_of_weights else _first_line(error)
    near = () if is_of_weights else sizes_near(name, image_size)
    takes = join_names([*map(str, near), f"{own[0]} x {own[1]}"])
    return BackboneError(
        f"{name} cannot take images of {image_size[0]} x {image_size[1]} px: {why}",
        hint=f"model.image_size can be {takes} px (the last is the size of its weights)",
    )


def _first_line(error: Exception) -> str:
    """The first line of a foreign message."""
    return (str(error) or type(error).__name__).splitlines()[0]
