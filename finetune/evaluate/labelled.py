"""Labelled images for an evaluation: one part of a data source, or all of one without parts.

The photos that a model was trained on keep the parts of that run, which `split.csv` beside the
model holds: from a folder without parts, the test part is what the run carved out, not everything.
Wherever the photos stand now, they are known by their content.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.data.content import digest_of
from finetune.data.decode import UnreadableImageError, open_image_file
from finetune.data.groups import dependence_note
from finetune.data.index import index_source
from finetune.data.leaks import Leaks, tell_leaks
from finetune.data.split import EarlierSplit, read_split
from finetune.data.words import counted
from finetune.errors import DataError, join_names, nearest
from finetune.runtime.paths import absolute_path
from finetune.types import Index, Sample, Split

if TYPE_CHECKING:
    from finetune.model.bundle import Bundle

__all__ = ["Labelled", "read_labelled"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled images of one part.

    Attributes:
        split: Which part they are.
        samples: In the order of their names.
        notes: Sentences on what was left out, and on classes that the model does not know.
        leaks: Those that were also trained on; None where that is not known.
    """

    split: Split
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]
    leaks: Leaks | None = None


def read_labelled(source: str | Path, *, split: Split, bundle: Bundle) -> Labelled:
    """Read the labelled images of one part of a folder or CSV.

    Args:
        source: A folder by class, a folder with splits, or a CSV.
        split: `train`, `val` or `test`; a source without parts is taken whole, unless the model
            was trained on it. A folder of photos that the run used for validation is `val`, asked
            for or not.
        bundle: The model; a source may lack some of its classes, and may have others.

    Raises:
        DataError: The part is missing, none of its classes is known to the model, or the model was
            trained on these very photos and it is not known which of them it has not seen.
    """
    follow_links = bool(_data_section(bundle).get("follow_links"))
    whole = index_source(source, follow_links=follow_links)
    index, num_copies = _with_parts_of_run(whole, source, bundle, split=split)
    parts = sorted({str(sample.split) for sample in index.samples} - {"None"})
    if parts and split not in parts:
        unseen = [part for part in parts if part != "train"]
        if unseen == ["val"] and not _is_own(source, bundle) and not _has_parts(whole):
            return read_labelled(source, split="val", bundle=bundle)
        raise DataError(
            f"{source} has no part {split!r}; it has {join_names(parts)}",
            hint=f"--split {unseen[0]}" if unseen else "give photos that it was not trained on",
        )
    samples = tuple(one for one in index.samples if not parts or one.split == split)
    if not any(sample.label in bundle.classes for sample in samples):
        found = sorted({str(sample.label) for sample in samples})
        raise DataError(
            f"none of the classes in {source} is known to the model: {join_names(found)}",
            hint=f"the model knows {join_names(bundle.classes)}",
        )
    notes = [*index.warnings, *_unknown_classes(samples, bundle.classes)]
    leaks = None if num_copies is None or split == "train" else Leaks(num_copies, None)
    return Labelled(split, samples, (*notes, *filter(None, [dependence_note(samples)])), leaks)


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


def _with_parts_of_run(
    index: Index, source: str | Path, bundle: Bundle, *, split: Split
) -> tuple[Index, int | None]:
    """Give the samples the parts that they had when the model was trained on them.

    Returns:
        The index, and how many photos of the part asked for were also trained on; None where that
        is not known.
    """
    is_same = _is_own(source, bundle)
    run = bundle.folder.resolve().parent if bundle.folder else None
    if run and all((run / name).is_file() for name in ("recipe.yaml", "split.csv")):
        earlier = read_split(run / "split.csv")
        if is_same:
            return _with_parts(_without(index, _left_out(run)), earlier, split=split)
        return _with_parts_of_content(index, earlier, _left_out(run), split=split)
    if not is_same:
        return index, None
    if not _has_parts(index):
        raise DataError(
            f"the model was trained on photos of {source}, and split.csv, which says on which of "
            "them, is not beside it: figures from all of them would be no test",
            hint="name the run folder instead of its model, or give other photos",
        )
    return index, None


def _without(index: Index, left_out: Collection[str]) -> Index:
    """Leave out what a run left out of these very photos, and say how many these are."""
    kept = tuple(sample for sample in index.samples if sample.name not in left_out)
    number = len(index.samples) - len(kept)
    if not number:
        return index
    said = f"{counted(number, 'photo')} that the run left out, left out here as well"
    return replace(index, samples=kept, warnings=(*index.warnings, said))


def _with_parts(index: Index, earlier: EarlierSplit, *, split: Split) -> tuple[Index, int | None]:
    """Give the samples the parts of a run; what has come or gone since is said.

    A photo is known by its content, as far as it has been seen, else by its name: files may have
    been given one another's. A new one counts where the source itself puts it into val or test.
    """
    samples, new, moved, num_copies = [], [], [], 0
    for sample in index.samples:
        part = earlier.parts.get(sample.name)
        if part is None or part == split:  # what is not asked for needs no second look
            own, digest = sample.split if sample.split in ("val", "test") else None, _digest(sample)
            known = earlier.part_of(digest, preferred=split)
            if known not in (None, split) and split in (part, own):
                moved.append(sample.name)
            part = known or part or own
            num_copies += part == split and earlier.is_trained_on(digest)
        if part is None:
            new.append(sample.name)
        else:
            samples.append(replace(sample, split=part))
    gone = [name for name in earlier.parts if not os.path.lexists(index.root / name)]
    said = [*_copies_told(num_copies, samples, split), *index.warnings, *_used_told(moved)]
    if new:
        photos = counted(len(new), "photo", "is/are")
        said.append(f"{photos} of no part of the run, left out: {join_names(new)}")
    if gone:
        photos = counted(len(gone), "photo")
        said.append(f"{photos} of the run no longer found under that name: {join_names(gone)}")
    found = replace(index, samples=tuple(samples), warnings=tuple(said))
    return found, num_copies if earlier.parts_of_content else None


def _with_parts_of_content(
    index: Index, earlier: EarlierSplit, left_out: Collection[str], *, split: Split
) -> tuple[Index, int | None]:
    """Give photos that a run knows by their content its parts, wherever they stand now."""
    if not earlier.parts_of_content:
        return index, None
    asked = [one for one in index.samples if one.split in (None, split)]
    digests = {one.name: _digest(one) for one in asked}
    found = {name: earlier.part_of(one, preferred=split) for name, one in digests.items()}
    known = {name: part for name, part in found.items() if part is not None}
    if sum(name in earlier.parts for name in known) > len(asked) / 2:
        index = _without(index, left_out)  # the photos of the run, moved with their names
        known = {one.name: known[one.name] for one in index.samples if one.name in known}
    num_copies = sum(
        part == split and earlier.is_trained_on(digests[name]) for name, part in known.items()
    )
    if not known:
        return index, num_copies
    used = [name for name, part in known.items() if part != split]
    samples = [replace(one, split=known.get(one.name, one.split or split)) for one in index.samples]
    said = [*_copies_told(num_copies, samples, split), *index.warnings, *_used_told(used)]
    return replace(index, samples=tuple(samples), warnings=tuple(said)), num_copies


def _used_told(names: Sequence[str]) -> tuple[str, ...]:
    """Say which photos the run knows as of another part than the one asked for."""
    if not names:
        return ()
    photos = counted(len(names), "photo", "has/have")
    return (f"{photos} another part in the run, left out: {join_names(names)}",)


def _copies_told(num_copies: int, samples: Sequence[Sample], split: Split) -> tuple[str, ...]:
    """Say that photos of the part asked for were also trained on, as the run itself did."""
    total = sum(sample.split == split for sample in samples)
    return () if split == "train" else tell_leaks(Leaks(num_copies, None), total, split)


def _left_out(run: Path) -> frozenset[str]:
    """Name what a run left out: as damaged, as a fix list said, or as another's photos."""
    file = run / "events.jsonl"
    try:
        # Not splitlines, which parts lines at characters that a name may hold.
        lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else ()
        found = (json.loads(line) for line in lines if '"DataFound"' in line)
        return frozenset(item["name"] for event in found for item in event["left_out"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged: {error}") from error


def _digest(sample: Sample) -> str:
    """Digest the content of a photo; empty where it cannot be read, as evaluation will say."""
    try:
        with open_image_file(sample.path) as file:
            return digest_of(file)
    except UnreadableImageError:
        return ""


def _has_parts(index: Index) -> bool:
    """Tell whether a source itself says which photos are for testing."""
    return any(sample.split for sample in index.samples)


def _is_own(source: str | Path, bundle: Bundle) -> bool:
    """Tell whether a source is the very place that a model was trained from."""
    return absolute_path(source).resolve() == _trained_on(bundle)


def _trained_on(bundle: Bundle) -> Path | None:
    """The data that a model was trained on; None where it does not say."""
    path = _data_section(bundle).get("path")
    return Path(path).resolve() if path else None


def _data_section(bundle: Bundle) -> Mapping[str, Any]:
    """The data section of the recipe that made a model; empty where it does not say."""
    recipe = bundle.document.get("recipe")
    section = recipe.get("data") if isinstance(recipe, Mapping) else None
    return section if isinstance(section, Mapping) else {}
