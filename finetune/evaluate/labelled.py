"""Labelled images for an evaluation: one part of a data source, or all of one without parts."""

from pathlib import Path

from finetune.data.index import index_source
from finetune.errors import DataError, join_names
from finetune.types import Sample

__all__ = ["read_labelled"]


def read_labelled(source: str | Path, *, split: str, classes: tuple[str, ...]) -> list[Sample]:
    """Read the labelled images of one part of a folder or CSV.

    Args:
        source: A folder by class, a folder with splits, or a CSV.
        split: `train`, `val` or `test`; a source without parts is taken whole.
        classes: Class names of the model; a source may lack some, and may have others.

    Raises:
        DataError: The part is missing, or none of its classes is known to the model.
    """
    index = index_source(source)
    parts = {sample.split for sample in index.samples} - {None}
    if parts and split not in parts:
        raise DataError(
            f"{source} has no part {split!r}; it has {join_names(sorted(map(str, parts)))}",
            hint=f"--split {sorted(map(str, parts))[0]}",
        )
    samples = [s for s in index.samples if not parts or s.split == split]
    known = [s for s in samples if s.label in classes]
    if not known:
        found = sorted({str(sample.label) for sample in samples})
        raise DataError(
            f"none of the classes in {source} is known to the model: {join_names(found)}",
            hint=f"the model knows {join_names(classes)}",
        )
    return samples
