"""Small frozen dataclasses that pass from floor to floor, and what follows from them alone.

Shape legend, everywhere: B batch, N samples, C channels, H W pixels, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_WORKERS = 8  # more wait for each other's disk and memory; PyTorch's own examples use 4 to 8
# Measured: a worker's first image comes after 0.13 s; 256 photos of 512x384 decode in about 0.6 s.
_FEW_IMAGES = 200

__all__ = [
    "BackboneFacts",
    "Choice",
    "DataFacts",
    "Index",
    "InputRequest",
    "LeftOut",
    "Looks",
    "MachineFacts",
    "Outputs",
    "ParamInfo",
    "ParamRule",
    "Progress",
    "Reduction",
    "Sample",
    "Split",
]

T = TypeVar("T")
Split = Literal["train", "val", "test"]
Progress = Callable[[int, int], None]  # (done, total) after each item of a long piece of work
# Whether an upright image of the first size may be decoded as one of the second: (width, height) px
Reduction = Callable[[tuple[int, int], tuple[int, int]], bool]


@dataclass(frozen=True)
class Choice(Generic[T]):
    """An automatic choice and the reason for it; both are printed and saved."""

    value: T
    reason: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    Attributes:
        path: Absolute path of the file.
        name: POSIX path relative to the data folder (or to the CSV): how tables name it.
        label: Class name; None where it is not known.
        split: Part it belongs to; None until `split_index` has run.
        group: Images of one group stay in one part; None means a group of its own.
        digest: Hex digest of the file's bytes; None until `check_images` has run.
        size_px: Width and height of the upright image; None until `check_images` has run.
        picture: Names the picture shown: files that are copies or near-duplicates share it; None
            until `check_images` has run.
        extra: Further columns of its row in a CSV, (name, value) in their order; empty values are
            left out.
    """

    path: Path
    name: str
    label: str | None = None
    split: Split | None = None
    group: str | None = None
    digest: str | None = None
    size_px: tuple[int, int] | None = None
    picture: str | None = None
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or row that takes no part in the run, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Index:
    """All samples of a data source, before or after splitting.

    Attributes:
        root: Folder that `Sample.name` is relative to.
        samples: In the order of their names.
        classes: Sorted class names of the training part; the order of every probability column.
        left_out: Files and rows that take no part, with the reason.
        warnings: Sentences that the person should read before training.
    """

    root: Path
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()

    def part(self, split: Split) -> tuple[Sample, ...]:
        """Give the samples of one part, in order."""
        return tuple(sample for sample in self.samples if sample.split == split)


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What the resolution of a recipe needs to know of the data.

    Attributes:
        num_train: Number of training images.
        num_val: Number of validation images.
        class_counts: Training images of each class, in class order.
    """

    num_train: int
    num_val: int
    class_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What the resolution of a recipe needs to know of the backbone.

    Attributes:
        family: `conv` (with batch norm), `convnext` (with layer norm), `vit` or `hybrid`.
        has_batch_norm: Whether any module is a batch normalisation.
        num_depths: Number of coarse groups, the head not counted.
        num_blocks: Number of fine groups, the head not counted.
        crop_mode: How the weights' evaluation fits an image: `center`, `border` or `squash`.
        is_narrow: Whether a strided 1 by 1 convolution has fewer than 16 input channels: torch 2.13
            crashes in its backward pass on a CPU with channels last.
    """

    family: Literal["conv", "convnext", "vit", "hybrid"]
    has_batch_norm: bool
    num_depths: int
    num_blocks: int
    crop_mode: Literal["center", "border", "squash"] = "center"
    is_narrow: bool = False

    def prefers_channels_last(self, device: str) -> bool:
        """Whether image tensors shall have their channels last on a device.

        On Apple's GPUs torch refuses or computes wrong gradients of batch normalisation that way
        (pytorch issues 134580 and 175189).
        """
        return self.family != "vit" and not self.is_narrow and not device.startswith("mps")


@dataclass(frozen=True, slots=True)
class InputRequest:
    """What a person wants of a network's input; None leaves it to the weights.

    Attributes:
        image_size: Height and width in pixels.
        in_chans: Channels of an image.
    """

    image_size: tuple[int, int] | None = None
    in_chans: int | None = None


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What the resolution of a recipe needs to know of the machine.

    Attributes:
        device: A torch device string: `cpu`, `cuda:0`, `mps`.
        device_reason: Why this device was chosen.
        has_fast_bf16: Whether training in bf16 pays, by this device's rule or by measurement.
        bf16_reason: Why it does, or does not.
        num_cpus: Cores this process may use.
        bf16_pass_gain: How many times as many images pass through the network in bf16 as in fp32,
            without gradients; None where it was not measured.
    """

    device: str
    device_reason: str
    has_fast_bf16: bool
    num_cpus: int
    bf16_reason: str = "fp32 is right everywhere"
    bf16_pass_gain: float | None = None

    def choose_workers(self, num_images: int) -> Choice[int]:
        """Choose how many processes decode so many images; no result depends on it.

        On two cores, median images/s of five interleaved passes of training were 7.9 without
        workers, 9.6 with one, 7.3 with two (MobileNetV2, bf16, busy machine).
        """
        cores = f"{self.num_cpus} core" + ("s" if self.num_cpus > 1 else "")
        if self.num_cpus == 1:
            return Choice(0, "one core: no process beside the one that trains")
        if num_images < _FEW_IMAGES:
            return Choice(0, f"{num_images} images are decoded before a process has started")
        if self.device == "cpu":
            workers = min(self.num_cpus // 2, _MOST_WORKERS)
            return Choice(workers, f"{cores}, and training needs them as well")
        return Choice(min(self.num_cpus, _MOST_WORKERS), cores)


@dataclass(frozen=True, slots=True)
class ParamInfo:
    """A parameter of a network as a freeze policy sees it.

    Attributes:
        name: Dotted name within the network.
        depth: Coarse group (timm's `group_matcher(coarse=True)`), 0 at the input; the head is last.
        block: Fine group (`coarse=False`), 0 at the input; the head is last.
        is_head: Whether it belongs to `get_classifier()`.
        is_norm: Whether it belongs to a normalisation layer.
        ndim: Number of dimensions; 1 for biases and scales.
        depth_name: Its coarse group: `stem` for 0, `head` for the head, else the number.
        is_undecayed: Whether its architecture names it as one that weight decay leaves alone, such
            as position embeddings and tables of biases (timm's `no_weight_decay`).
    """

    name: str
    depth: int
    block: int
    is_head: bool
    is_norm: bool
    ndim: int
    depth_name: str
    is_undecayed: bool = False


@dataclass(frozen=True, slots=True)
class ParamRule:
    """What a freeze policy says of one parameter.

    Attributes:
        name: Dotted name, as in `ParamInfo`.
        trainable: Whether it learns in this stage.
        lr_scale: Factor on the stage's learning rate, > 0.
        decay: Whether weight decay applies.
    """

    name: str
    trainable: bool
    lr_scale: float = 1.0
    decay: bool = True


@dataclass(frozen=True, slots=True)
class Looks:
    """What N images look like, as far as it was seen while they were predicted; NaN is unknown.

    Attributes:
        widths_px: (N,) of the upright image.
        heights_px: (N,) of the upright image.
        brightness: (N,) mean luma of what the network sees, 0 to 255.
        sharpness: (N,) variance of the Laplacian of that luma; low where it is blurred.
    """

    widths_px: NDArray[np.float64]
    heights_px: NDArray[np.float64]
    brightness: NDArray[np.float64]
    sharpness: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network says of N images.

    Attributes:
        names: N names, in the order asked for.
        labels: (N,) int64 indices into `classes`; -1 where the label is unknown.
        probs: (N, K) float32, rows sum to 1; NaN rows where `errors` has the reason.
        classes: K class names, the order of the columns.
        errors: Reason by position, for images that could not be read.
        logits: (N, K) float32, before any temperature; None where only `probs` are known.
        features: (N, D) float32, what enters the head; None unless asked for.
        sets: (N, K) bool, the classes named together; None where the model has none fitted.
        rejected: (N,) bool, whether the answer is withheld; None likewise.
        novelty: (N,) float32, distance to the training photos, 1 at the threshold; None likewise.
        looks: What the images look like; None where it was not measured.
        extras: Further columns of a CSV, by image: `Sample.extra`; empty where there are none.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    probs: NDArray[np.float32]
    classes: tuple[str, ...]
    errors: dict[int, str] = field(default_factory=dict)
    logits: NDArray[np.float32] | None = None
    features: NDArray[np.float32] | None = None
    sets: NDArray[np.bool_] | None = None
    rejected: NDArray[np.bool_] | None = None
    novelty: NDArray[np.float32] | None = None
    looks: Looks | None = None
    extras: tuple[tuple[tuple[str, str], ...], ...] = ()
