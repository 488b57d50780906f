"""Preprocessing: from a decoded image to what the network takes; it comes from the weights.

Geometry is timm's own `create_transform` on the Pillow image, equal to it bit for bit; it leaves
uint8, so that a batch travels small and is normalised in float32 on its device. Constants are
never assumed: of timm's pretrained configurations a third does not use ImageNet's mean and std.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from finetune.components.section import Section
from finetune.types import Reduction

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

__all__ = ["InputSpec", "Preprocessing"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
CropMode = Literal["center", "border", "squash"]
Colour = Literal["grey", "rgb", "bands"]
Channels = Literal[1, 3, 4]
Decode = Literal["full", "reduced"]
Pixels = Annotated[int, Field(ge=1, le=16_384)]

# Pillow's own line between a large picture and a suspicious one; 256 MiB as RGB.
_MOST_RESIZED_PIXELS = 89_478_485
# Pillow's default `reducing_gap` of thumbnails: "very close to fair resampling".
_REDUCING_GAP = 2.0
_COLOURS: dict[int, Colour] = {1: "grey", 3: "rgb", 4: "bands"}
_CROP_MODES: dict[str, CropMode] = {"crop": "center", "pad": "border", "squash": "squash"}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a training image must be: the part of preprocessing that augmentation needs.

    Attributes:
        height: Pixels.
        width: Pixels.
        interpolation: Pillow's name of the weights' interpolation; used where an image grows.
        crop_mode: How evaluation brings an image to the input's shape (timm's word).
        crop_pct: Part of the resized image that evaluation keeps along each side.
        channels: C of the image: 1 grey, 3 RGB, 4 bands as they are in the file.
        fill: C values of padded borders, 0 to 255; one value stands for all.
        decode: Whether files may be decoded at reduced scale.
    """

    height: int
    width: int
    interpolation: str
    crop_mode: CropMode = "center"
    crop_pct: float = 1.0
    channels: int = 3
    fill: tuple[int, ...] = (0,)
    decode: Decode = "full"

    def __post_init__(self) -> None:
        if len(self.fill) == 1:
            object.__setattr__(self, "fill", self.fill * self.channels)


class Preprocessing(Section):
    """Geometry and normalisation of a network's input, as timm's data configuration has them.

    Example:
        >>> Preprocessing(input_size=(3, 64, 64), crop_pct=1.0).lost_fraction(128, 64)
        0.5
    """

    input_size: tuple[Channels, Pixels, Pixels] = Field(
        (3, 224, 224), description="Channels (1, 3 or 4), height and width in pixels."
    )
    mean: tuple[float, ...] = Field(
        (0.485, 0.456, 0.406), description="Mean of each channel for values in 0 to 1."
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.229, 0.224, 0.225), description="Standard deviation of each channel, same scale."
    )
    interpolation: Interpolation = Field("bicubic", description="Pillow's, with antialiasing.")
    crop_pct: float = Field(
        0.875, gt=0, le=4, description="Part of the resized side that the crop keeps."
    )
    crop_mode: CropMode = Field(
        "center", description="center cuts the long side, border pads it, squash distorts."
    )
    exif: Literal["apply"] = Field("apply", description="The EXIF orientation is applied.")
    colour: Colour = Field(
        "rgb", description="grey, rgb or bands, as the channels say: finetune.data.decode."
    )

    decode: Decode = Field(
        "full", description="reduced decodes a JPEG smaller where geometry allows; full never."
    )

    @model_validator(mode="before")
    @classmethod
    def _follow_the_channels(cls, values: Any) -> Any:
        """Fill in what the channels decide; a mean or std of one value stands for all of them."""
        if not isinstance(values, Mapping):
            return values
        channels = _channels_in(values)
        if channels is None:
            return values  # refused by the field
        names = ("mean", "std")
        given = {name: values.get(name, cls.model_fields[name].default) for name in names}
        wide = {
            name: _spread(found, channels)
            for name, found in given.items()
            if isinstance(found, list | tuple) and (len(found) == 1 or name not in values)
        }
        return {"colour": _COLOURS[channels], **values, **wide}

    @model_validator(mode="after")
    def _agree_on_the_channels(self) -> Self:
        """Refuse a mean, std or colour of another number of channels."""
        for name, found in (("mean", self.mean), ("std", self.std)):
            if len(found) != self.channels:
                raise ValueError(
                    f"{name} has {len(found)} values, input_size {self.input_size} asks for "
                    f"{self.channels}"
                )
        if self.colour != _COLOURS[self.channels]:
            raise ValueError(
                f"colour {self.colour} contradicts input_size {self.input_size}, "
                f"which is {_COLOURS[self.channels]}"
            )
        return self

    @classmethod
    def from_data_config(cls, config: Mapping[str, Any]) -> Self:
        """Read what `timm.data.resolve_model_data_config` gives.

        A mean or std that is not of the input's channels becomes its own mean for each of them,
        as in timm's `resolve_input_data_config`.

        Raises:
            pydantic.ValidationError: A value is outside what this package can do, such as an
                input of two channels.
        """
        names = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")
        values = {name: config[name] for name in names if name in config}
        channels = _channels_in(values) or 3
        for name in {"mean", "std"} & values.keys():
            values[name] = _spread(values[name], channels)
        return cls.model_validate(values)

    def to_data_config(self) -> dict[str, Any]:
        """Give the keywords of `timm.data.create_transform`."""
        return self.model_dump(exclude={"exif", "colour", "decode"})

    @property
    def channels(self) -> int:
        """C: 1 grey, 3 RGB, 4 bands as they are in the file."""
        return self.input_size[0]

    @property
    def spec(self) -> InputSpec:
        """What augmentation must deliver."""
        return InputSpec(
            height=self.input_size[1],
            width=self.input_size[2],
            interpolation=self.interpolation,
            crop_mode=self.crop_mode,
            crop_pct=self.crop_pct,
            channels=self.channels,
            fill=tuple(round(255 * value) for value in self.mean),
            decode=self.decode,
        )

    @property
    def reduction(self) -> Reduction | None:
        """Which scales of a file evaluation may be shown; None where it asks for full decoding.

        A reduced image still has twice the sides that it is resized to, and is resized to exactly
        the same size: the crop, and so what is seen, stays. It is softer by what libjpeg's scaling
        and Pillow's filter differ from Pillow's filter alone. At an uneven size the last row or
        column of the reduced image is partly empty, which libjpeg fills: a shift of less than half
        a pixel of the input. Nearest-neighbour resizing is always of the full image.
        """
        return self._allows if self.decode == "reduced" else None

    def with_channels(self, in_chans: int) -> Self:
        """Change the number of channels, as timm does when it adapts RGB weights to them.

        The mean and std of every channel become the mean of those there were.

        Args:
            in_chans: 1, 3 or 4.

        Raises:
            pydantic.ValidationError: Another number.
        """
        if in_chans == self.channels:
            return self
        config = {**self.to_data_config(), "input_size": (in_chans, *self.input_size[1:])}
        return type(self).from_data_config(config).model_copy(update={"decode": self.decode})

    def with_resize(self, mode: Literal["crop", "pad", "squash"]) -> Self:
        """Change how an image comes to the input's shape.

        `pad` and `squash` are asked for in order to lose no pixel, so a change to them also keeps
        the whole side (`crop_pct` 1). Where the weights already work that way nothing changes.
        """
        wanted = _CROP_MODES[mode]
        if wanted == self.crop_mode:
            return self
        crop_pct = self.crop_pct if mode == "crop" else 1.0
        return self.model_copy(update={"crop_mode": wanted, "crop_pct": crop_pct})

    def transform(self) -> "Callable[[Image], torch.Tensor]":
        """Build timm's evaluation transform up to, and without, normalisation.

        Returns:
            A callable: Pillow image of any size → (C, H, W) uint8 tensor; its mode is L, RGB or,
            for four bands, CMYK (`finetune.components.pixels`). Images so long that timm's
            transform would fail on them or fill the memory are cut or shrunk beforehand.
        """
        from finetune.torchvision_ops import register_missing_ops

        register_missing_ops()
        from timm.data import create_transform

        inner = create_transform(**self.to_data_config(), is_training=False, normalize=False)
        return _Geometry(self, inner)

    def normalize(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Scale to [0, 1], subtract the mean, divide by the standard deviation, on the device.

        Args:
            batch: (B, C, H, W) uint8.

        Returns:
            (B, C, H, W) float32 on the same device, in the same memory format; on a CPU equal bit
            for bit to torchvision's `ToTensor` and `Normalize`, whose operations these are.
        """
        import torch

        mean = torch.tensor(self.mean, dtype=torch.float32, device=batch.device).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=torch.float32, device=batch.device).view(-1, 1, 1)
        return batch.to(torch.float32).div_(255).sub_(mean).div_(std)

    def describe(self) -> str:
        """Say in a line what an image becomes, and where that comes from."""
        channels, height, width = self.input_size
        colour = {1: "grey, ", 3: "", 4: "4 bands, "}[channels]
        mean = ", ".join(f"{value:g}" for value in self.mean)
        std = ", ".join(f"{value:g}" for value in self.std)
        reduced = "; large JPEGs at reduced scale" if self.decode == "reduced" else ""
        mode = f"{self.crop_mode} {self.crop_pct:g}"
        return (
            f"{height} x {width} px, {colour}{self.interpolation}, "
            f"{mode}, mean {mean}, std {std} (from the weights){reduced}"
        )

    def lost_fraction(self, width: int, height: int) -> float:
        """Tell what share of an image's pixels the geometry cuts off, in [0, 1).

        Args:
            width: Of the decoded image, in pixels.
            height: Of the decoded image, in pixels.
        """
        _, input_height, input_width = self.input_size
        new_width, new_height = self.resized(width, height)
        kept = min(1.0, input_height / new_height) * min(1.0, input_width / new_width)
        return 1.0 - kept

    def seen(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Tell which part of an image the network sees.

        Args:
            width: Of the decoded image, in pixels.
            height: Of the decoded image, in pixels.

        Returns:
            Left, top, width and height of that part, as shares of the image's own. Where borders
            are padded it reaches beyond the image.

        Example:
            >>> Preprocessing(input_size=(3, 64, 64), crop_pct=1.0).seen(128, 64)
            (0.25, 0.0, 0.5, 1.0)
        """
        resized, wanted = self.resized_px(width, height), (self.input_size[2], self.input_size[1])
        left, top = (_margin(*sides) / sides[0] for sides in zip(resized, wanted, strict=True))
        return left, top, wanted[0] / resized[0], wanted[1] / resized[1]

    def resized(self, width: int, height: int) -> tuple[float, float]:
        """Tell the width and height, in pixels and unrounded, that an image has before the crop."""
        box_height, box_width = (math.floor(side / self.crop_pct) for side in self.input_size[1:])
        if self.crop_mode == "squash":
            return float(box_width), float(box_height)
        choose = max if self.crop_mode == "border" else min
        ratio = choose(width / box_width, height / box_height)
        return width / ratio, height / ratio

    def resized_px(self, width: int, height: int) -> tuple[int, int]:
        """Tell the width and height in whole pixels, as timm's transform rounds them."""
        box_height, box_width = (math.floor(side / self.crop_pct) for side in self.input_size[1:])
        if self.crop_mode == "center" and box_height == box_width:
            # torchvision's Resize, which timm takes here, cuts off what the others round
            short, long = min(width, height), max(width, height)
            long = int(box_width * long / short)
            return (box_width, long) if width <= height else (long, box_width)
        new_width, new_height = self.resized(width, height)
        return round(new_width), round(new_height)

    def _allows(self, full: tuple[int, int], reduced: tuple[int, int]) -> bool:
        """Whether an upright image of one size may be decoded as one of another."""
        wanted = self.resized_px(*full)
        is_ample = all(
            side >= _REDUCING_GAP * new for side, new in zip(reduced, wanted, strict=True)
        )
        is_equal = self.resized_px(*reduced) == wanted
        return is_ample and is_equal and self.interpolation != "nearest"


def _margin(side: int, wanted: int) -> int:
    """Give the pixels that a centre crop cuts off before an image; below 0 those that it pads."""
    return round((side - wanted) / 2) if side >= wanted else -((wanted - side) // 2)


def _channels_in(values: Mapping[str, Any]) -> int | None:
    """Read the number of channels from unchecked values: 3 where unsaid, None where no such."""
    size = values.get("input_size", (3,))
    channels = size[0] if isinstance(size, list | tuple) and size else None
    return channels if isinstance(channels, int) and channels in _COLOURS else None


def _spread(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Give a value for each channel: the values themselves, or their mean for each."""
    if len(values) == channels:
        return tuple(values)
    return (sum(values) / len(values),) * channels


class _Geometry:
    """timm's transform, behind a guard against images that are nearly lines."""

    def __init__(
        self, preprocessing: Preprocessing, inner: "Callable[[Image], torch.Tensor]"
    ) -> None:
        self._preprocessing = preprocessing
        self._inner = inner

    def __call__(self, image: "Image") -> "torch.Tensor":
        return self._inner(self._tamed(image))

    def _tamed(self, image: "Image") -> "Image":
        """Give the image itself, but for a line: its middle, or at least one pixel of its width."""
        new_width, new_height = self._preprocessing.resized(*image.size)
        if min(new_width, new_height) <= 0.5:  # timm would round it to no pixel and fail
            return image.resize((max(1, round(new_width)), max(1, round(new_height))))
        if new_width * new_height <= _MOST_RESIZED_PIXELS:
            return image
        scale = image.width / new_width
        _, input_height, input_width = self._preprocessing.input_size
        keep_width = min(image.width, math.ceil(4 * input_width * scale))
        keep_height = min(image.height, math.ceil(4 * input_height * scale))
        left, top = (image.width - keep_width) // 2, (image.height - keep_height) // 2
        return image.crop((left, top, left + keep_width, top + keep_height))
