"""Load images in batches: uint8 tensors, by worker processes that change nothing but the time.

- What a training image looks like follows from (seed, stage, epoch, position), its order from
  (seed, stage, epoch): never from the worker, and the random state of the process stays untouched.
- The epoch stands in shared memory, since workers live on from epoch to epoch with their own copy
  of the data set.
- A file that can no longer be read, or holds something else by now, ends the run (`reading.py`).
"""

import errno
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from finetune.components.pipelines import AugmentFunction
from finetune.components.pixels import to_array
from finetune.data.kept import KeptViews
from finetune.data.reading import LoadingError, Read, read_sample
from finetune.errors import DataError, FinetuneError
from finetune.runtime.device import available_cpus
from finetune.runtime.seeds import derive_seed
from finetune.runtime.space import free_shared_memory, size_words
from finetune.types import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "EpochSampler",
    "EvalImages",
    "TrainImages",
    "ViewImages",
    "killed_workers_named",
    "make_loader",
    "make_pass",
    "require_shared_memory",
]

Item = tuple[torch.Tensor, int, int]  # (C, H, W) uint8, label, position

_LEAST_SHARED_BYTES = 1 << 20  # two batches of one photo of 224 px, and what keeps them in order
_WHY_KILLED = "a process that decodes images was killed: " + (
    "often memory or /dev/shm did not suffice"
    if sys.platform == "linux"
    else "often memory did not suffice, or the script that trains does so without the line "
    'if __name__ == "__main__": before it'
)
_WITHOUT_WORKERS = (
    "without further processes: run --set runtime.workers=0, or predict or evaluate --workers 0"
)


class EvalImages(Dataset[Item]):
    """Images as evaluation sees them.

    Args:
        samples: N samples.
        transform: Pillow image → (C, H, W) uint8 tensor.
        classes: K class names; the label of a sample is its index here, -1 where it has none.
        read: Open file → Pillow image: `decode` with its arguments.
        kept: Has some of the views already.

    Attributes:
        labels: N class indices.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: "Callable[[Image], torch.Tensor]",
        classes: Sequence[str],
        read: Read,
        *,
        kept: KeptViews | None = None,
    ) -> None:
        self._kept = kept
        self._samples = tuple(samples)
        self._transform = transform
        self.labels = _labels(samples, classes)
        self._read = read

    def __len__(self) -> int:
        return len(self._samples)

    def is_kept(self, position: int) -> bool:
        """Tell whether an image need not be decoded."""
        return (
            self._kept is not None and self._kept.find(self._samples[position].digest) is not None
        )

    @property
    def num_decoded(self) -> int:
        """Images that have to be decoded in a pass."""
        return sum(not self.is_kept(position) for position in range(len(self)))

    def __getitem__(self, position: int) -> Item:
        sample = self._samples[position]
        view = None if self._kept is None else self._kept.find(sample.digest)
        if view is None:
            view = self._transform(read_sample(sample, self._read))
        return view, self.labels[position], position


class TrainImages(Dataset[Item]):
    """Images changed by an augmentation, anew in each epoch.

    An index beyond the number of samples N is a repetition: `i + k * N` is sample i, drawn for the
    k-th time after the first, and changed in another way.

    Args:
        samples: N samples; each has one of the classes.
        augment: What `build` of a section gives.
        classes: K class names; the label of a sample is its index here.
        seed: The seed of the run.
        read: Open file → Pillow image of the channels that the augmentation takes: `decode` with
            its arguments.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        augment: AugmentFunction,
        classes: Sequence[str],
        seed: int,
        read: Read,
    ) -> None:
        self._samples = tuple(samples)
        self._augment = augment
        self._labels = _labels(samples, classes)
        self._seed = seed
        self._read = read
        self._epoch = torch.zeros(2, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def begin_epoch(self, stage_index: int, epoch: int) -> None:
        """Tell which epoch comes next, before its first batch is asked for."""
        self._epoch[0], self._epoch[1] = stage_index, epoch

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Item:
        repetition, position = divmod(index, len(self._samples))
        sample = self._samples[position]
        stage_index, epoch = self._epoch.tolist()
        seed = derive_seed(self._seed, "augment", stage_index, epoch, position, repetition)
        return self._augmented(sample, seed), self._labels[position], position

    def view(self, position: int, view: int) -> torch.Tensor:
        """Give a view of a sample that has a digest: (C, H, W) uint8, the same in every epoch."""
        sample = self._samples[position]
        return self._augmented(sample, derive_seed(self._seed, "view", view, str(sample.digest)))

    def _augmented(self, sample: Sample, seed: int) -> torch.Tensor:
        """Read a sample and change it; what cannot be done names it."""
        pixels = to_array(read_sample(sample, self._read))
        try:
            changed = self._augment(pixels, seed=seed)
        except DataError as error:
            raise LoadingError(f"{sample.name}: {error.message}", hint=error.hint) from error
        return torch.from_numpy(changed).permute(2, 0, 1).contiguous()


class ViewImages(Dataset[Item]):
    """Views of images: view 0 as evaluation sees it, each other changed in its own way.

    What a view looks like follows from the seed of the run, its number, and the image's content. An
    item has its view in place of a label, and its own number in place of a position.

    Args:
        plain: The images as evaluation sees them.
        changed: The same images, to be augmented; None where only view 0 is wanted.
        wanted: (position, view) of each item.
    """

    def __init__(
        self, plain: EvalImages, changed: TrainImages | None, wanted: Sequence[tuple[int, int]]
    ) -> None:
        self._plain = plain
        self._changed = changed
        self._wanted = tuple(wanted)

    def __len__(self) -> int:
        return len(self._wanted)

    @property
    def num_decoded(self) -> int:
        """Images that have to be decoded in a pass."""
        return sum(view != 0 or not self._plain.is_kept(row) for row, view in self._wanted)

    def __getitem__(self, index: int) -> Item:
        position, view = self._wanted[index]
        if view == 0 or self._changed is None:
            return self._plain[position][0], view, index
        return self._changed.view(position, view), view, index


class EpochSampler(Sampler[int]):
    """The order of the training images, a function of (seed, stage, epoch).

    Args:
        num_samples: N; an epoch is N draws.
        seed: The seed of the run.
        weights: N weights to draw with repetition; None gives each image once.
    """

    def __init__(self, num_samples: int, seed: int, weights: Sequence[float] | None = None) -> None:
        self._num_samples = num_samples
        self._seed = seed
        self._weights = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        self._stage_index, self._epoch, self._skip = 0, 0, 0

    def begin_epoch(self, stage_index: int, epoch: int, *, skip: int = 0) -> None:
        """Tell which epoch comes next; not `set_epoch`, which Accelerate calls by its own count.

        Args:
            stage_index: 0-based.
            epoch: 1-based within the stage.
            skip: Draws to leave out at its beginning: they were made before an interruption.
        """
        self._stage_index, self._epoch, self._skip = stage_index, epoch, skip

    def __len__(self) -> int:
        return self._num_samples

    def __iter__(self) -> Iterator[int]:
        return islice(self._draws(), self._skip, None)

    def _draws(self) -> Iterator[int]:
        """Draw a whole epoch."""
        seed = derive_seed(self._seed, "order", self._stage_index, self._epoch)
        generator = torch.Generator().manual_seed(seed)
        if self._weights is None:
            yield from torch.randperm(self._num_samples, generator=generator).tolist()
            return
        draws = torch.multinomial(
            self._weights, self._num_samples, replacement=True, generator=generator
        )
        times: dict[int, int] = {}
        for position in draws.tolist():
            yield position + self._num_samples * times.get(position, 0)
            times[position] = times.get(position, 0) + 1


def make_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    workers: int,
    sampler: EpochSampler | None = None,
    drop_single: bool = False,
    device: str = "cpu",
) -> DataLoader[Any]:
    """Make the loader of a data set.

    Args:
        dataset: `EvalImages`, `TrainImages`, `ViewImages`, or any that makes batches of its items
            by a `collate` of its own.
        batch_size: Images a batch; the last may have fewer.
        workers: Processes that decode, at most one a core, and none where nothing is to be decoded;
            0 decodes in this one.
        sampler: The order; None is that of the data set.
        drop_single: Leave out a last batch of one image, on which BatchNorm cannot train.
        device: A torch device string; on cuda, batches are pinned.

    Returns:
        Batches of (B, C, H, W) uint8 images, (B,) int64 labels, (B,) int64 positions, unless the
        data set makes others.

    Raises:
        FinetuneError: There is next to no shared memory for the workers.
    """
    num_samples = len(dataset)  # type: ignore[arg-type]
    is_single = num_samples > 1 and num_samples % batch_size == 1
    workers = min(workers, available_cpus()) if _num_decoded(dataset) else 0
    require_shared_memory(workers)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_single and is_single,
        num_workers=workers,
        collate_fn=getattr(dataset, "collate", None),
        # Training comes back each epoch; the workers of one look at the data shall not outlive it.
        persistent_workers=workers > 0 and sampler is not None,
        pin_memory=device.startswith("cuda"),
        worker_init_fn=_start_worker if workers else None,
        # Its own, since DataLoader draws from the process's generator at each pass otherwise.
        generator=torch.Generator().manual_seed(0),
    )


def make_pass(
    dataset: Dataset[Any], *, batch_size: int, workers: int, device: str = "cpu"
) -> Iterable[Any]:
    """Make the batches of one look at a data set, in its order, decoded ahead of their use.

    Args:
        dataset: As `make_loader` takes it.
        batch_size: Images a batch.
        workers: Processes that decode. Instead of a single one a thread of this process does so:
            decoding leaves the interpreter to others, and nothing is forked.
        device: A torch device string.
    """
    is_thread = workers == 1 and _num_decoded(dataset) > 0
    loader = make_loader(
        dataset, batch_size=batch_size, workers=0 if is_thread else workers, device=device
    )
    return _Ahead(loader) if is_thread else loader


class _Ahead:
    """Batches of a loader, the next of which a thread makes while one is used."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                coming = pool.submit(next, batches, None)
                yield batch


def require_shared_memory(workers: int) -> None:
    """Refuse to start workers that could hand over nothing; with little, a large batch kills one.

    Raises:
        FinetuneError: There is next to no shared memory.
    """
    free = free_shared_memory()
    if workers and free is not None and free < _LEAST_SHARED_BYTES:
        raise FinetuneError(
            f"{size_words(free)} are free in /dev/shm: processes that decode cannot hand over "
            "what they have decoded",
            hint=_WITHOUT_WORKERS,
        )


@contextmanager
def killed_workers_named() -> Iterator[None]:
    """Turn the end of a process that decodes into one sentence, in a block or around a function.

    PyTorch raises it wherever the main thread is at that moment, not where batches are asked for.

    Raises:
        FinetuneError: A process that decodes was killed, or could not be started.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise FinetuneError(_WHY_KILLED, hint=_WITHOUT_WORKERS) from error
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        raise FinetuneError(
            "there is no room left in /dev/shm for processes that decode", hint=_WITHOUT_WORKERS
        ) from error


def _num_decoded(dataset: Any) -> int:
    """Count the images that have to be decoded in a pass."""
    number: int = getattr(dataset, "num_decoded", len(dataset))
    return number


def _labels(samples: Sequence[Sample], classes: Sequence[str]) -> list[int]:
    """Give each sample's index into the classes; -1 where it is in none."""
    position = {name: index for index, name in enumerate(classes)}
    return [-1 if s.label is None else position.get(s.label, -1) for s in samples]


def _start_worker(_: int) -> None:
    """Set a worker up: the process that it serves answers Ctrl-C, and ends it.

    OpenCV keeps to one thread: its pool does not survive a fork, and every core has a worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    opencv = sys.modules.get("cv2")
    if opencv is not None:
        opencv.setNumThreads(0)
