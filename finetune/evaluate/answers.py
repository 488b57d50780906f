"""What a finished run says of its images, as far as another run can be held against it.

Two runs are compared on the same images alone: the same names, labels and, where the files of the
runs tell it, contents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from finetune.data.words import counted
from finetune.errors import DataError, join_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Cost", "RunAnswers", "aligned", "limits_of", "require_same", "units_of"]

_SAME_PHOTOS = "evaluate both on the same photos: finetune evaluate RUN --data DIR --out FOLDER"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost, as far as its files say; None where they do not.

    Attributes:
        total_seconds: Of the whole run.
        training_seconds: Of its stages.
        num_parameters: Of the saved network.
        peak_memory_mib: Largest resident memory of the run.
        images_per_second: Predicted while the figures were made, decoding included.
        model_bytes: Size of the weights file.
        device: On which all of this was measured.
    """

    total_seconds: float | None = None
    training_seconds: float | None = None
    num_parameters: int | None = None
    peak_memory_mib: int | None = None
    images_per_second: float | None = None
    model_bytes: int | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RunAnswers:
    """What one run says of the N scored images of one part.

    Attributes:
        name: How the run is called.
        split: Name of the part.
        classes: K names.
        paths: N names of images, none twice.
        labels: (N,) int64 indices into the classes.
        predicted: (N,) int64 indices into the classes.
        probability: (N,) of the predicted class.
        digests: Of the N files; None where the run's files do not say.
        groups: Of the N images, as the data names them; None where an image is by itself.
        num_leaked: Images that the run was also trained on, as far as its files say.
        fingerprint: Of all images, labels and parts of the run; None where its files do not say.
        cost: What it cost.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: "NDArray[np.int64]"
    predicted: "NDArray[np.int64]"
    probability: "NDArray[np.float64]"
    digests: tuple[str | None, ...] = ()
    groups: tuple[str | None, ...] = ()
    num_leaked: int = 0
    fingerprint: str | None = None
    cost: Cost = Cost()


def require_same(reference: RunAnswers, run: RunAnswers) -> None:
    """Refuse runs that know other classes or were tested on other images.

    Raises:
        DataError: Classes, names, labels or contents of the images differ; those that do are named.
    """
    pair = (reference.name, run.name)
    _refuse_differing(pair, "know different classes", reference.classes, run.classes)
    _refuse_differing(pair, "were tested on different images", reference.paths, run.paths)
    labels = dict(zip(run.paths, _names(run, run.labels), strict=True))
    known = zip(reference.paths, _names(reference, reference.labels), strict=True)
    torn = [f"{path} ({own} and {labels[path]})" for path, own in known if labels[path] != own]
    if torn:
        raise DataError(
            f"{' and '.join(pair)} were tested under different labels: {join_names(torn)}",
            hint=_SAME_PHOTOS,
        )
    contents = dict(zip(run.paths, run.digests, strict=False))
    changed = [
        path
        for path, digest in zip(reference.paths, reference.digests, strict=False)
        if None not in (digest, contents.get(path)) and digest != contents[path]
    ]
    if changed:
        images = counted(len(changed), "image", "was/were")
        raise DataError(
            f"{images} changed between {' and '.join(pair)}: the names are the same, the files "
            f"are not: {join_names(changed)}",
            hint=_SAME_PHOTOS,
        )


def _refuse_differing(
    pair: tuple[str, str], what: str, first: Sequence[str], second: Sequence[str]
) -> None:
    """Refuse two runs whose names are not the same ones; say which stand in one alone."""
    alone = [(pair[0], sorted({*first} - {*second})), (pair[1], sorted({*second} - {*first}))]
    found = [f"only in {run}: {join_names(names)}" for run, names in alone if names]
    if found:
        raise DataError(
            f"{' and '.join(pair)} {what}; {'; '.join(found)}",
            hint=f"finetune run --split RUN/split.csv takes the parts of a run; or {_SAME_PHOTOS}",
        )


def aligned(run: RunAnswers, reference: RunAnswers) -> RunAnswers:
    """Bring images and classes into the order of the reference, by name."""
    place = {path: row for row, path in enumerate(run.paths)}
    rows = np.array([place[path] for path in reference.paths], dtype=np.int64)
    index = {name: number for number, name in enumerate(reference.classes)}
    number = np.array([index[name] for name in run.classes], dtype=np.int64)
    return replace(
        run,
        classes=reference.classes,
        paths=reference.paths,
        labels=number[run.labels[rows]],
        predicted=number[run.predicted[rows]],
        probability=run.probability[rows],
        digests=tuple(run.digests[row] for row in rows) if run.digests else (),
        groups=tuple(run.groups[row] for row in rows) if run.groups else (),
    )


def units_of(runs: Sequence[RunAnswers]) -> "NDArray[np.int64] | None":
    """Number what is independent of one another: groups, and images that are in none.

    Args:
        runs: With the same images in the same order; not the files of each tell of groups.

    Returns:
        (N,) int64; None where each image is by itself, as far as the runs tell.
    """
    found = []
    for run in runs:
        if any(run.groups):
            names = [
                f"image {path}" if group is None else f"group {group}"
                for path, group in zip(run.paths, run.groups, strict=True)
            ]
            found.append(np.unique(names, return_inverse=True)[1].astype(np.int64))
    units = min(found, key=np.max, default=None)  # of several accounts the coarsest
    return None if units is None or units.max() + 1 == len(units) else units


def limits_of(runs: Sequence[RunAnswers], units: "NDArray[np.int64] | None") -> tuple[str, ...]:
    """Say what limits a comparison of runs on the same images, in sentences.

    Args:
        runs: With the images in the same order; the reference first.
        units: As `units_of` gives them.
    """
    notes = []
    if runs[0].split == "val":
        notes.append(
            "compared on val, which chose the weights of each run: no test; evaluate the runs on "
            "photos that neither has seen before one is preferred"
        )
    same_data = len({run.fingerprint for run in runs}) == 1 and runs[0].fingerprint is not None
    if not same_data and not all(_is_content_known(run) for run in runs):
        notes.append(
            "the images have the same names and labels; whether they are the same files is not "
            "known, since the files of a run do not say"
        )
    leaking = [f"{run.num_leaked} for {run.name}" for run in runs if run.num_leaked]
    if leaking:
        notes.append(
            f"of {counted(len(runs[0].labels), 'image')} some were also trained on, "
            f"{' and '.join(leaking)}: who remembers them better looks better"
        )
    if units is not None:
        groups = counted(int(units.max()) + 1, "group")
        notes.append(
            f"the images are of {groups}, which p-values go by; intervals take images as "
            "independent, and are too narrow"
        )
    devices = {run.cost.device for run in runs} - {None}
    if len(devices) > 1:
        names = " and ".join(sorted(str(device) for device in devices))
        notes.append(f"seconds, memory and images/s were measured on different devices: {names}")
    return tuple(notes)


def _is_content_known(run: RunAnswers) -> bool:
    """Tell whether the content of every image is known."""
    return bool(run.digests) and None not in run.digests


def _names(run: RunAnswers, index: "NDArray[np.int64]") -> list[str]:
    """Give class names for indices."""
    return [run.classes[number] for number in index]
