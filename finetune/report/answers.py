"""What a model said of the photos of a part, read back from `predictions.csv`.

Of each photo the likeliest classes are kept and the probability of its own: a table of 10,000
photos and 1,000 classes never stands in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.errors import FinetuneError
from finetune.evaluate.figures import count_confusion

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["NUM_LIKELIEST", "Answers", "read_answers"]

NUM_LIKELIEST = 5  # classes kept of each photo: as many as top-5 accuracy looks at
_ROWS_AT_ONCE = 2048  # 16 MB with 1,000 classes


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model said of N photos of one part; T classes of each, the likeliest first.

    Attributes:
        classes: K names.
        names: N paths relative to the data folder.
        labels: (N,) int64 indices of classes; -1 where the model does not know the class.
        likeliest: (N, T) int64 indices of classes.
        probabilities: (N, T) float32 of these; NaN where the photo could not be read.
        own: (N,) float32 probability of the label; NaN where either is missing.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    likeliest: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    own: NDArray[np.float32]

    @property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) index of the likeliest class, whatever it is where there is no answer."""
        return self.likeliest[:, 0]

    @property
    def confidence(self) -> NDArray[np.float32]:
        """(N,) probability of the likeliest class."""
        return self.probabilities[:, 0]

    @cached_property
    def is_scored(self) -> NDArray[np.bool_]:
        """(N,) whether the figures count it: it has an answer and its class is known."""
        return np.isfinite(self.confidence) & (self.labels >= 0)

    @cached_property
    def is_mistake(self) -> NDArray[np.bool_]:
        """(N,) whether it is scored and taken for another class."""
        is_other: NDArray[np.bool_] = self.predicted != self.labels
        return self.is_scored & is_other

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K) counts of scored photos: rows true, columns predicted."""
        scored = self.is_scored
        return count_confusion(
            self.predicted[scored], self.labels[scored], num_classes=len(self.classes)
        )


def read_answers(path: Path, classes: Sequence[str]) -> dict[str, Answers]:
    """Read `predictions.csv`: the answers by part, in its order.

    Args:
        path: The table.
        classes: K names, as `metrics.json` has them.

    Raises:
        FinetuneError: It is missing, or is no table of these classes.
    """
    try:
        pieces = [_piece(frame, classes) for frame in _frames(path, classes)]
    except OSError as error:
        raise FinetuneError(
            f"{path} cannot be read: {error.strerror}", hint="finetune run writes it anew"
        ) from error
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise FinetuneError(
            f"{path} is damaged, or not of these {len(classes)} classes: {reason}",
            hint="finetune evaluate RUN --data DIR --out DIR makes the tables anew",
        ) from error
    if not pieces:
        return {}
    whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    splits = whole.pop("split")
    return {
        str(split): _part(whole, splits == split, tuple(classes)) for split in dict.fromkeys(splits)
    }


def _frames(path: Path, classes: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Give the table some rows at a time; only an empty cell is missing, a class may be `NA`."""
    import pandas as pd

    shares = [f"p_{name}" for name in classes]
    texts = ["path", "split", "label"]
    types: dict[Any, Any] = {**dict.fromkeys(texts, "object"), **dict.fromkeys(shares, "float32")}
    with pd.read_csv(
        path,
        usecols=[*texts, *shares],
        dtype=types,
        keep_default_na=False,
        na_values={name: [""] for name in shares},
        chunksize=_ROWS_AT_ONCE,
    ) as frames:
        yield from frames


def _piece(frame: pd.DataFrame, classes: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Reduce some rows to what is kept of them."""
    place = {name: index for index, name in enumerate(classes)}
    labels = np.array([place.get(name, -1) for name in frame["label"]], dtype=np.int64)
    probs = frame[[f"p_{name}" for name in classes]].to_numpy(dtype=np.float32)
    known = np.where(np.isnan(probs), -np.inf, probs)
    order = np.argsort(-known, axis=1, kind="stable")[:, :NUM_LIKELIEST]
    own = np.where(labels >= 0, probs[np.arange(len(labels)), labels], np.float32(np.nan))
    return {
        "split": frame["split"].to_numpy(dtype=object),
        "names": frame["path"].to_numpy(dtype=object),
        "labels": labels,
        "likeliest": order.astype(np.int64),
        "probabilities": np.take_along_axis(probs, order, axis=1),
        "own": own,
    }


def _part(
    whole: dict[str, NDArray[Any]], rows: NDArray[np.bool_], classes: tuple[str, ...]
) -> Answers:
    """Take the rows of one part."""
    return Answers(
        classes=classes,
        names=tuple(whole["names"][rows].tolist()),
        labels=whole["labels"][rows],
        likeliest=whole["likeliest"][rows],
        probabilities=whole["probabilities"][rows],
        own=whole["own"][rows],
    )
