"""Prediction: the one code that turns images into probabilities, for every face and every figure.

fp32, whatever training used and unless bf16 is asked for, with batch normalisations folded into
convolutions. An image that cannot be read has its reason, the others are predicted. Nothing here
depends on batch size or on the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset

from finetune.data.decode import UnreadableImageError, decode, to_image
from finetune.data.loading import killed_workers_named, make_pass
from finetune.model.family import find_family
from finetune.model.fuse import fused
from finetune.model.looks import measure_looks
from finetune.runtime.allocator import freed_memory_kept
from finetune.runtime.device import plain_fp32
from finetune.runtime.space import in_pieces
from finetune.types import Looks, Outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from finetune.components.preprocess import Preprocessing
    from finetune.model.bundle import Bundle
    from finetune.model.network import Network
    from finetune.model.store import Budgets
    from finetune.types import Progress, Sample

ImageLike: TypeAlias = "Path | Image | NDArray[np.uint8]"
Size: TypeAlias = tuple[float, float]  # width and height in pixels; NaN where unknown
# Position, input tensor or None, the reason where it is None, and the size before.
Row: TypeAlias = tuple[int, "torch.Tensor | None", str, Size]

# Positions, (B, C, H, W) uint8 images and sizes of what can be predicted; reasons of what cannot.
Batch: TypeAlias = "tuple[list[int], torch.Tensor, dict[int, str], list[Size]]"

_UNKNOWN = (float("nan"), float("nan"))

__all__ = ["ImageLike", "InferenceOptions", "predict", "predict_samples", "ready"]


@dataclass(frozen=True, slots=True)
class InferenceOptions:
    """How prediction runs; none of it changes an answer by more than rounding.

    Careful: bf16 rounds to three digits, which changes answers that are nearly ties; how many is in
    `docs/benchmarks/precision.json`.

    Attributes:
        device: A torch device string.
        batch_size: Images at a time.
        workers: Processes that decode; a single one is a thread of this process, 0 decodes between
            batches.
        max_pixels: Images with more pixels are not decoded; None takes the limit of the run.
        precision: Of the network's layers, where autocast of torch allows it.
        keeps_features: Whether what enters the head is kept in the outputs.
        budgets: What features that are stored may take; None for the defaults.
    """

    device: str = "cpu"
    batch_size: int = 32
    workers: int = 0
    max_pixels: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    keeps_features: bool = False
    budgets: Budgets | None = None


@killed_workers_named()
def predict(
    bundle: Bundle,
    items: Sequence[ImageLike],
    *,
    names: Sequence[str] | None = None,
    options: InferenceOptions | None = None,
    progress: Progress | None = None,
    are_looks_wanted: bool = False,
) -> Outputs:
    """Predict images, in order.

    Args:
        bundle: The model.
        items: Paths, Pillow images, or HWC uint8 arrays of the network's channels: RGB where it
            takes three.
        names: A name for each; the path, or its position, where None.
        options: How it runs.
        progress: Called with images done and images in all.
        are_looks_wanted: Measure what the images look like, beside predicting them.

    Returns:
        Outputs with labels of -1; a row of NaN and a reason for each item that cannot be read.
        Probabilities, sets and doubts are those of the bundle's calibration.
    """
    options = options or InferenceOptions()
    names = names or [
        str(item) if isinstance(item, Path) else str(i) for i, item in enumerate(items)
    ]
    answers = _Answers(bundle, len(items), options)
    errors: dict[int, str] = {}
    looks = _unknown_looks(len(items)) if are_looks_wanted else None
    network = ready(bundle.network, options.device)
    done = 0
    kept = freed_memory_kept() if len(items) > 1 else nullcontext()
    with kept, plain_fp32(options.device):
        for positions, batch, reasons, sizes in _loader(bundle, items, options):
            errors.update(reasons)
            if positions:
                batch = batch.to(options.device)
                answers.add(positions, network, batch)
                _look(looks, positions, batch, sizes)
            done += len(positions) + len(reasons)
            if progress:
                progress(done, len(items))
    return replace(answers.outputs(tuple(names), errors), looks=looks)


def predict_samples(
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    options: InferenceOptions | None = None,
    progress: Progress | None = None,
) -> Outputs:
    """Predict labelled samples, and measure what they look like.

    Classes are matched by name, an unknown one is -1. Sizes are those of the samples where they
    are known: a reduced decode does not tell them.
    """
    outputs = predict(
        bundle,
        [sample.path for sample in samples],
        names=[sample.name for sample in samples],
        options=options,
        progress=progress,
        are_looks_wanted=True,
    )
    _fill_in_sizes(outputs, samples)
    position = {name: index for index, name in enumerate(bundle.classes)}
    labels = np.array([position.get(str(s.label), -1) for s in samples], dtype=np.int64)
    return replace(outputs, labels=labels, extras=tuple(sample.extra for sample in samples))


class _Images(Dataset[Row]):
    """Images by position: an input tensor with the size before, or the reason why there is none."""

    def __init__(
        self,
        items: Sequence[ImageLike],
        preprocessing: Preprocessing,
        max_pixels: int,
    ) -> None:
        self.items = items
        self.transform = preprocessing.transform()
        self.channels = preprocessing.channels
        self.reduction = preprocessing.reduction
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> Row:
        item = self.items[position]
        try:
            image = self._read(item)
        except UnreadableImageError as error:
            return position, None, error.message, _UNKNOWN
        # Careful: a file that was decoded at reduced scale has another size.
        is_whole = self.reduction is None or not isinstance(item, Path)
        return position, self.transform(image), "", image.size if is_whole else _UNKNOWN

    @staticmethod
    def collate(rows: Sequence[Row]) -> Batch:
        """Part a batch into what can be predicted, with its sizes, and what cannot."""
        good = [(position, image, size) for position, image, _, size in rows if image is not None]
        reasons = {position: reason for position, image, reason, _ in rows if image is None}
        images = torch.stack([image for _, image, _ in good]) if good else torch.empty(0)
        sizes = [size for _, _, size in good]
        return [position for position, _, _ in good], images, reasons, sizes

    def _read(self, item: ImageLike) -> Image:
        """Decode a file as the model was saved to; an image in memory is taken as it is."""
        if not isinstance(item, Path):
            return to_image(item, channels=self.channels)
        return decode(
            item, max_pixels=self.max_pixels, channels=self.channels, reduction=self.reduction
        )


def _loader(bundle: Bundle, items: Sequence[ImageLike], options: InferenceOptions) -> Any:
    """Load batches of (positions, uint8 images, reasons by position, sizes)."""
    dataset = _Images(items, bundle.preprocessing, options.max_pixels or bundle.max_pixels)
    return make_pass(
        dataset,
        batch_size=options.batch_size,
        workers=min(options.workers, len(items)),
        device=options.device,
    )


def _unknown_looks(num_images: int) -> Looks:
    """Give looks of which nothing is known yet."""
    return Looks(*(np.full(num_images, np.nan) for _ in range(4)))


@torch.inference_mode()
def _look(
    looks: Looks | None, positions: Sequence[int], batch: torch.Tensor, sizes: Sequence[Size]
) -> None:
    """Note what the images of a batch look like, where that is wanted."""
    if looks is None:
        return
    looks.widths_px[positions], looks.heights_px[positions] = np.array(sizes, dtype=np.float64).T
    brightness, sharpness = measure_looks(batch)
    looks.brightness[positions] = brightness.cpu().numpy()
    looks.sharpness[positions] = sharpness.cpu().numpy()


def _fill_in_sizes(outputs: Outputs, samples: Sequence[Sample]) -> None:
    """Note the sizes that are known from elsewhere."""
    for position, sample in enumerate(samples):
        if outputs.looks is not None and sample.size_px is not None:
            outputs.looks.widths_px[position], outputs.looks.heights_px[position] = sample.size_px


@lru_cache(maxsize=1)  # a person who predicts photo after photo has one network
def ready(network: Network, device: str) -> Network:
    """Bring a network to the device, in eval mode, fused, in the layout its family is fast in.

    Args:
        network: It moves; what is given is a copy of it where something could be fused.
        device: A torch device string.
    """
    # On Apple's GPUs torch computes some convolutions wrong with channels last.
    is_plain = find_family(network) == "vit" or device.startswith("mps")
    layout = torch.contiguous_format if is_plain else torch.channels_last
    ready = fused(network.to(device).eval(), network.input_size)
    return ready.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]


class _Answers:
    """What a network says of N images, as it comes in.

    Args:
        bundle: The model.
        num_images: N.
        options: The precision, and whether features are kept as well.
    """

    def __init__(self, bundle: Bundle, num_images: int, options: InferenceOptions) -> None:
        self._bundle = bundle
        self._keeps_features = options.keeps_features
        self._rounding = torch.autocast(
            torch.device(options.device).type,
            dtype=torch.bfloat16,
            enabled=options.precision == "bf16",
        )
        self._logits = np.full((num_images, len(bundle.classes)), np.nan, dtype=np.float32)
        self._features: NDArray[np.float32] | None = None
        has_novelty = bundle.calibration.novelty is not None
        self._novelty = np.full(num_images, np.nan, dtype=np.float32) if has_novelty else None

    def add(self, positions: list[int], network: Network, batch: torch.Tensor) -> None:
        """Answer for uint8 images (B, C, H, W); what does not fit into memory is cut in two."""
        in_pieces(lambda rows: self._answer(positions[rows], network, batch[rows]), len(positions))

    @torch.inference_mode()
    def _answer(self, positions: list[int], network: Network, batch: torch.Tensor) -> None:
        """Send images through the network, and keep what comes out."""
        images = self._bundle.preprocessing.normalize(batch)
        if self._novelty is None and not self._keeps_features:
            with self._rounding:
                logits = network(images)
            self._logits[positions] = logits.float().cpu().numpy()
            return
        with self._rounding:
            logits, features = network.answers(images)
        self._logits[positions] = logits.float().cpu().numpy()
        novelty = self._bundle.calibration.novelty
        if novelty is not None and self._novelty is not None:
            self._novelty[positions] = novelty.scores(features)
        if self._keeps_features:
            self._keep(positions, features.float().cpu().numpy())

    def _keep(self, positions: list[int], features: NDArray[np.float32]) -> None:
        """Keep the features (B, D) of a batch; the first one tells their width."""
        if self._features is None:
            shape = (len(self._logits), features.shape[1])
            self._features = np.full(shape, np.nan, dtype=np.float32)
        self._features[positions] = features

    def outputs(self, names: tuple[str, ...], errors: dict[int, str]) -> Outputs:
        """Give all of it, with probabilities and doubts; no label is known."""
        raw = Outputs(
            names,
            np.full(len(names), -1, dtype=np.int64),
            self._logits,
            self._bundle.classes,
            errors,
            logits=self._logits,
            features=self._features,
            novelty=self._novelty,
        )
        return self._bundle.calibration.applied(raw)
