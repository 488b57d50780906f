"""Features of images: what enters the linear layer of a classifier, computed once and stored.

They come from, and go to, the store that the probe of a run uses: a run after a check computes
nothing again, nor does a check after a run, where both compute in fp32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch

from finetune.components.pixels import MAX_PIXELS
from finetune.data.decode import decode
from finetune.data.loading import EvalImages, killed_workers_named, make_pass
from finetune.model.family import describe_backbone
from finetune.model.fuse import fused
from finetune.model.parts import digest_of
from finetune.model.store import ALL_MEMORY, StoreFullError, StoreKey, image_id, open_store
from finetune.model.store_key import device_kind
from finetune.runtime.allocator import freed_memory_kept
from finetune.runtime.rows import collect_rows
from finetune.runtime.space import in_pieces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from finetune.data.kept import KeptViews
    from finetune.model.bundle import Bundle
    from finetune.model.create import Model
    from finetune.model.inference import InferenceOptions
    from finetune.model.network import Network
    from finetune.types import Progress, Sample

__all__ = ["compute_features"]


@freed_memory_kept()
def compute_features(
    model: Model | Bundle,
    samples: Sequence[Sample],
    *,
    label: str,
    options: InferenceOptions,
    kept: KeptViews | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Give the features of checked images in fp32: read where they are stored, else computed.

    Args:
        model: A network with any head; only what enters the head counts.
        samples: N samples with digests.
        label: What the features are of, for `finetune cache ls`.
        options: How it runs.
        kept: Has what evaluation sees of some images already.
        progress: Called with images computed and images to compute.

    Returns:
        (N, D), in the order of the samples.

    Raises:
        DataError: A file can no longer be read.
        RecipeError: timm's classifier has no linear layer that gives one value a class.
    """
    work = _Pass(model, options, kept)
    try:
        return work.run(samples, label=label, place="disk", progress=progress)
    except StoreFullError:  # they are given in memory in any case
        work = _Pass(model, replace(options, budgets=ALL_MEMORY), kept)
        return work.run(samples, label=label, place="memory", progress=progress)


@dataclass(frozen=True, slots=True)
class _Pass:
    """Images sent through a backbone."""

    model: Model | Bundle
    options: InferenceOptions
    kept: KeptViews | None

    @killed_workers_named()
    @torch.no_grad()
    def run(
        self,
        samples: Sequence[Sample],
        *,
        label: str,
        place: Literal["disk", "memory"],
        progress: Progress | None,
    ) -> NDArray[np.float32]:
        """Compute what is missing in a store, and read all of it."""
        ids = [image_id(str(sample.digest)) for sample in samples]
        network = self.model.network.to(self.options.device).eval()
        network = network.to(memory_format=self._layout())  # type: ignore[call-overload]
        ready = fused(network, network.input_size)
        blank = torch.zeros(1, *network.input_size, device=self.options.device)
        shape = tuple(ready.answers(blank)[1].shape[1:])
        with open_store(
            self._key(), (shape,), label=label, place=place, budgets=self.options.budgets
        ) as store:
            missing = store.missing(ids)
            done = 0
            for images, positions in self._batches([samples[number] for number in missing]):
                found = [ids[missing[position]] for position in positions]
                parts = in_pieces(partial(_features_of, ready, images), len(found))
                store.add(found, (torch.cat(parts),))
                done += len(found)
                if progress is not None:
                    progress(done, len(missing))

            def read(some: slice) -> NDArray[np.float32]:
                (values,) = store.read(ids[some])
                rows: NDArray[np.float32] = values.numpy()
                return rows

            return collect_rows(read, len(ids), math.prod(shape))

    def _batches(self, samples: Sequence[Sample]) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Give normalised images (B, C, H, W) on the device, with their positions."""
        preprocessing, options = self.model.preprocessing, self.options
        read = partial(
            decode,
            max_pixels=options.max_pixels or MAX_PIXELS,
            channels=preprocessing.channels,
            reduction=preprocessing.reduction,
        )
        views = EvalImages(samples, preprocessing.transform(), (), read, kept=self.kept)
        loader = make_pass(
            views,
            batch_size=options.batch_size,
            workers=options.workers if samples else 0,
            device=options.device,
        )
        for images, _, positions in loader:
            yield preprocessing.normalize(images.to(options.device)), positions.tolist()

    def _layout(self) -> torch.memory_format:
        """Give the layout that the network is fast in, as a run chooses it."""
        facts = describe_backbone(self.model.network, self.model.preprocessing)
        is_last = facts.prefers_channels_last(self.options.device)
        return torch.channels_last if is_last else torch.contiguous_format

    def _key(self) -> StoreKey:
        """Say what features depend on but for the image, as the probe of a run says it."""
        network, preprocessing = self.model.network, self.model.preprocessing
        document = {"input": preprocessing.model_dump(mode="json")}
        is_last = self._layout() == torch.channels_last
        return StoreKey(
            computation=digest_of(
                network, "head_inputs, fused", without=network.answering_modules()
            ),
            preprocessing=json.dumps(document, sort_keys=True),
            memory_format="channels_last" if is_last else "contiguous",
            device=device_kind(self.options.device),
        )


def _features_of(network: Network, images: torch.Tensor, rows: slice) -> torch.Tensor:
    """Compute the features (B, D) of some images of a batch."""
    return network.answers(images[rows])[1]
