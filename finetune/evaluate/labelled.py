"""Labelled images for an evaluation: one part of a data source, or all of one without parts.

The photos that a model was trained on keep the parts of that run, which `split.csv` beside the
model holds: from a folder without parts, the test part is what the run carved out, not everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.index import index_source
from finetune.data.split import read_split
from finetune.data.words import counted
from finetune.errors import DataError, join_names, nearest
from finetune.types import Index, Sample, Split

if TYPE_CHECKING:
    from finetune.model.bundle import Bundle

__all__ = ["Labelled", "read_labelled"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled images of one part.

    Attributes:
        samples: In the order of their names.
        notes: Sentences on what was left out, and on classes that the model does not know.
    """

    samples: tuple[Sample, ...]
    notes: tuple[str, ...]


def read_labelled(source: str | Path, *, split: str, bundle: Bundle) -> Labelled:
    """Read the labelled images of one part of a folder or CSV.

    Args:
        source: A folder by class, a folder with splits, or a CSV.
        split: `train`, `val` or `test`; a source without parts is taken whole, unless the model
            was trained on it.
        bundle: The model; a source may lack some of its classes, and may have others.

    Raises:
        DataError: The part is missing, none of its classes is known to the model, or the model was
            trained on these very photos and it is not known which of them it has not seen.
    """
    follow_links = bool(_data_section(bundle).get("follow_links"))
    whole = index_source(source, follow_links=follow_links)
    index = _with_parts_of_run(whole, source, bundle)
    parts = sorted({str(sample.split) for sample in index.samples} - {"None"})
    if parts and split not in parts:
        raise DataError(
            f"{source} has no part {split!r}; it has {join_names(parts)}",
            hint=f"--split {parts[0]}",
        )
    samples = tuple(one for one in index.samples if not parts or one.split == split)
    if not any(sample.label in bundle.classes for sample in samples):
        found = sorted({str(sample.label) for sample in samples})
        raise DataError(
            f"none of the classes in {source} is known to the model: {join_names(found)}",
            hint=f"the model knows {join_names(bundle.classes)}",
        )
    return Labelled(samples, (*index.warnings, *_unknown_classes(samples, bundle.classes)))


def _unknown_classes(samples: Sequence[Sample], classes: Sequence[str]) -> tuple[str, ...]:
    """Say which classes the model does not know, with what may be meant; nothing if it knows all.

    The classes are matched by name: one that is spelt differently is another class.
    """
    counts = Counter(str(sample.label) for sample in samples)
    found = [
        f"{name} ({counted(number, 'image')}{_meant(name, classes)})"
        for name, number in sorted(counts.items())
        if name not in classes
    ]
    if not found:
        return ()
    one_or_more = counted(len(found), "class", "is/are")
    return (f"{one_or_more} unknown to the model and not scored: {join_names(found)}",)


def _meant(name: str, classes: Sequence[str]) -> str:
    """Ask whether a class of nearly this name is meant; letters' case makes two names."""
    folded = {known.casefold(): known for known in classes}
    near = nearest(name.casefold(), list(folded))
    return f"; is it {folded[near]}?" if near else ""


def _with_parts_of_run(index: Index, source: str | Path, bundle: Bundle) -> Index:
    """Give the samples the parts that they had when the model was trained on them."""
    if Path(source).expanduser().resolve() != _trained_on(bundle):
        return index
    file = bundle.folder.parent / "split.csv" if bundle.folder else None
    if file is not None and file.is_file():
        parts: Mapping[str, Split] = read_split(file, index.root)
        kept = (sample for sample in index.samples if sample.name in parts)
        samples = tuple(replace(sample, split=parts[sample.name]) for sample in kept)
        return replace(index, samples=samples)
    if not any(sample.split for sample in index.samples):
        raise DataError(
            f"the model was trained on photos of {source}, and split.csv, which says on which of "
            "them, is not beside it: figures from all of them would be no test",
            hint="name the run folder instead of its model, or give other photos",
        )
    return index


def _trained_on(bundle: Bundle) -> Path | None:
    """The data that a model was trained on; None where it does not say."""
    path = _data_section(bundle).get("path")
    return Path(path).resolve() if path else None


def _data_section(bundle: Bundle) -> Mapping[str, Any]:
    """The data section of the recipe that made a model; empty where it does not say."""
    recipe = bundle.document.get("recipe")
    section = recipe.get("data") if isinstance(recipe, Mapping) else None
    return section if isinstance(section, Mapping) else {}
