"""Carve validation and test parts: stratified, grouped, copies together, seeded by content.

scikit-learn's `StratifiedGroupKFold` is not used: its parts are 1/k of the data, and they depend on
the order of the samples. Here images that share a group, their bytes or a picture (near-duplicates)
make a unit; units are drawn in an order that follows from the seed and the digests of their files
alone, so that renaming, moving or listing the files differently leaves every image in its part.

A part takes of each class its fraction, rounded, at least one; a class with fewer than three
images, or too few units for all parts, stays in train as a whole, and that is said. Where it is
near-duplicates alone that leave a class too few units, as of a camera that stands still, they are
parted, and that is said.
"""

import csv
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.data.index import require_trainable
from finetune.data.words import counted
from finetune.errors import DataError, join_names
from finetune.runtime.csv_text import csv_text
from finetune.runtime.files import write_text
from finetune.runtime.seeds import derive_seed
from finetune.types import Index, Sample, Split

__all__ = [
    "EarlierSplit",
    "read_split",
    "reuse_split",
    "split_index",
    "split_text",
    "write_split",
]

_FEWEST = 3  # images of a class; fewer stay in train
_COLUMNS = ("path", "label", "split", "group", "digest")


@dataclass(frozen=True, slots=True)
class _Unit:
    """Images that must stay in one part.

    Attributes:
        names: Their names.
        counts: Images by class.
    """

    names: tuple[str, ...]
    counts: Mapping[str, int]


def split_index(index: Index, *, val_fraction: float, test_fraction: float, seed: int) -> Index:
    """Give every sample a part.

    A source with parts keeps them, and a missing `val` is carved out of train. From one without,
    `test` is carved as well.

    Args:
        index: As `check_images` gives it: digests and pictures decide the split.
        val_fraction: Part of each class, in (0, 1).
        test_fraction: Part of each class, in [0, 1); 0 carves none.
        seed: Of the order in which units are drawn.

    Returns:
        The index with a split in every sample, classes of train, and sentences on classes that
        stay in train.

    Raises:
        DataError: It cannot be trained on (see `require_trainable`), or no class has enough
            images for a validation part.
    """
    require_trainable(index)
    has_parts = any(sample.split is not None for sample in index.samples)
    fractions: dict[Split, float] = {}
    if not has_parts and test_fraction > 0:
        fractions["test"] = test_fraction
    if not index.part("val"):
        fractions["val"] = val_fraction
    pool = index.part("train") if has_parts else index.samples
    parts, alike = _carve(pool, fractions, seed) if fractions else ({}, ())
    samples = tuple(
        replace(sample, split=parts.get(sample.name, sample.split or "train"))
        for sample in index.samples
    )
    if not any(sample.split == "val" for sample in samples):
        raise DataError(
            f"no class of {index.root} has enough images for a validation part: "
            f"it takes {_FEWEST} images, in as many groups as there are parts",
            hint="add images, or give a folder val beside train",
        )
    finished = _finished(index, samples, fractions)
    return replace(finished, warnings=(*finished.warnings, *_alike_told(alike)))


def reuse_split(index: Index, path: Path) -> Index:
    """Give every sample the part that an earlier split gave it, whatever the source says.

    Photos that the split does not name are new: they join train, so that figures on the other parts
    can be compared with the earlier ones.

    Args:
        index: As `check_images` gives it.
        path: The `split.csv` of a run on the same folder or CSV.

    Raises:
        DataError: The split cannot be read, names photos that are gone, or has no validation part;
            or the samples cannot be trained on.
    """
    parts = read_split(path).parts
    missing = [name for name in parts if not (index.root / name).is_file()]
    if missing:
        raise DataError(f"{path} names images that are not in {index.root}: {join_names(missing)}")
    new = [sample.name for sample in index.samples if sample.name not in parts]
    samples = tuple(
        replace(sample, split=parts.get(sample.name, "train")) for sample in index.samples
    )
    if not any(sample.split == "val" for sample in samples):
        raise DataError(f"the split {path} leaves no photo of {index.root} for validation")
    reused = _finished(index, samples, {})
    require_trainable(reused)
    if not new:
        return reused
    photos = counted(len(new), "photo", "is/are")
    said = f"{photos} not in the split {path}, taken for train: {join_names(new)}"
    return replace(reused, warnings=(*reused.warnings, said))


def write_split(index: Index, path: Path) -> None:
    """Write the split as `path,label,split,group,digest`, whole or not at all.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    write_text(path, split_text(index))


def split_text(index: Index) -> str:
    """Give the split as CSV, in the order of the samples."""
    rows = (
        (sample.name, sample.label, sample.split, sample.group, sample.digest)
        for sample in index.samples
    )
    return csv_text([_COLUMNS, *rows])


@dataclass(frozen=True, slots=True)
class EarlierSplit:
    """What a `split.csv` says.

    Attributes:
        parts: Of each image by its name, relative to the data folder.
        parts_of_content: The same by digest, as far as it has digests; copies may be in several.
    """

    parts: Mapping[str, Split]
    parts_of_content: Mapping[str, frozenset[Split]]

    def part_of(self, digest: str, *, preferred: Split | None = None) -> Split | None:
        """Give the part of a content: that preferred where it is in several, else train."""
        found = self.parts_of_content.get(digest, frozenset())
        if preferred in found:
            return preferred
        return next((part for part in ("train", "val", "test") if part in found), None)

    def is_trained_on(self, digest: str) -> bool:
        """Tell whether a content is in train, whatever other parts it is in."""
        return "train" in self.parts_of_content.get(digest, ())


def read_split(path: Path) -> EarlierSplit:
    """Read what `write_split` wrote.

    Raises:
        DataError: The file cannot be read.
    """
    words: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        parts = {row["path"]: words[row["split"]] for row in rows}
        contents: dict[str, set[Split]] = {}
        for row in rows:
            if row.get("digest"):
                contents.setdefault(row["digest"], set()).add(words[row["split"]])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the split {path}: {error}") from error
    except KeyError as error:
        raise DataError(f"{path} is no split: {error} is missing or unknown") from error
    return EarlierSplit(parts, {digest: frozenset(found) for digest, found in contents.items()})


def _finished(index: Index, samples: tuple[Sample, ...], fractions: Mapping[Split, float]) -> Index:
    """Complete the index: classes of train, and what is to be said of small classes."""
    train = Counter(str(sample.label) for sample in samples if sample.split == "train")
    warnings = [*index.warnings, *_torn_groups(samples)]
    for split in fractions:
        present = {str(sample.label) for sample in samples if sample.split == split}
        absent = [f"{name} ({train[name]})" for name in sorted(train) if name not in present]
        if absent:
            classes = counted(len(absent), "class", "has/have")
            warnings.append(
                f"{classes} too few images for {split} and none there: {join_names(absent)}"
            )
    single = [name for name in sorted(train) if train[name] == 1]
    if single:
        classes = counted(len(single), "class", "has/have")
        warnings.append(f"{classes} one training image only: {join_names(single)}")
    return replace(index, samples=samples, classes=tuple(sorted(train)), warnings=tuple(warnings))


def _alike_told(alike: Sequence[str]) -> tuple[str, ...]:
    """Say of which classes near-duplicates were parted."""
    if not alike:
        return ()
    classes = counted(len(alike), "class", "shows/show")
    return (
        f"{classes} too few different pictures to keep near-duplicates together; they stand in "
        f"several parts: {join_names(alike)}",
    )


def _torn_groups(samples: Iterable[Sample]) -> list[str]:
    """Say which groups a source with parts has torn between train and another part."""
    homes: dict[str, set[Split | None]] = {}
    for sample in samples:
        if sample.group is not None:
            homes.setdefault(sample.group, set()).add(sample.split)
    torn = sorted(group for group, parts in homes.items() if "train" in parts and len(parts) > 1)
    if not torn:
        return []
    groups = counted(len(torn), "group", "stands/stand")
    return [f"{groups} in train and in another part, whose figures flatter: {join_names(torn)}"]


def _carve(
    samples: Sequence[Sample], fractions: Mapping[Split, float], seed: int
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Choose the samples of each part to carve; the others stay in train.

    Returns:
        The parts by name, and the classes whose near-duplicates had to be parted.
    """
    num_parts = len(fractions) + 1
    units = _make_units(samples, seed)
    small = _too_small(units, num_parts)
    alike = small and small - _too_small(_make_units(samples, seed, apart=small), num_parts)
    if alike:
        units = _make_units(samples, seed, apart=alike)
        small = _too_small(units, num_parts)
    totals = _sum_counts(units)
    free = [unit for unit in units if not small.intersection(unit.counts)]
    # A unit with a class that is too small stays in train, and its other classes with it.
    in_train = {name for unit in units if small.intersection(unit.counts) for name in unit.counts}
    parts: dict[str, Split] = {}
    for num_parts_left, (split, fraction) in zip(
        range(len(fractions), 0, -1), fractions.items(), strict=True
    ):
        wanted = {
            name: max(1, round(count * fraction))
            for name, count in totals.items()
            if name not in small
        }
        kept = {name: num_parts_left - (name in in_train) for name in wanted}
        chosen = _choose(free, wanted, kept)
        parts |= {name: split for unit in chosen for name in unit.names}
        free = [unit for unit in free if unit.names[0] not in parts]
    return parts, tuple(sorted(alike - small))


def _too_small(units: Sequence[_Unit], num_parts: int) -> set[str]:
    """Name the classes that have too few images, or units, to be in every part."""
    holding = Counter(name for unit in units for name in unit.counts)
    return {
        name
        for name, count in _sum_counts(units).items()
        if count < _FEWEST or holding[name] < num_parts
    }


def _choose(
    units: Sequence[_Unit], wanted: Mapping[str, int], kept: Mapping[str, int]
) -> list[_Unit]:
    """Choose units that come closest to the wanted images of each class.

    A unit is taken where it brings the counts nearer to those wanted. Where groups are too large
    for that, a class that would go without gets its smallest unit. Of every class as many units are
    kept as are told: one for each part that is still to come, and one for train.
    """
    choice = _Choice(missing=dict(wanted), spare=Counter())
    for name in (name for unit in units for name in unit.counts):
        choice.spare[name] += 1
    choice.spare.subtract(kept)
    for unit in units:
        if choice.gain(unit) > 0:
            choice.take(unit)
    for name in sorted(wanted):
        if choice.missing[name] == wanted[name]:
            having = [unit for unit in units if name in unit.counts]
            smallest = sorted(having, key=lambda unit: len(unit.names))
            next(filter(choice.take, smallest), None)
    return choice.units


@dataclass(slots=True)
class _Choice:
    """A part in the making.

    Attributes:
        missing: Images of each class that are still wanted; negative where there are too many.
        spare: Units of each class that can still be taken.
        units: What was taken.
    """

    missing: dict[str, int]
    spare: Counter[str]
    units: list[_Unit] = field(default_factory=list)

    def gain(self, unit: _Unit) -> int:
        """Tell how much nearer to what is wanted a unit brings all classes together."""
        return sum(
            abs(self.missing[name]) - abs(self.missing[name] - count)
            for name, count in unit.counts.items()
        )

    def take(self, unit: _Unit) -> bool:
        """Take a unit, unless another part would go without one of its classes."""
        if any(self.spare[name] < 1 for name in unit.counts):
            return False
        for name, count in unit.counts.items():
            self.missing[name] -= count
            self.spare[name] -= 1
        self.units.append(unit)
        return True


def _make_units(
    samples: Sequence[Sample], seed: int, *, apart: Collection[str] = ()
) -> list[_Unit]:
    """Join samples that share a group, bytes or a picture, and put the units into drawn order.

    Of the classes `apart` a shared picture does not join them.
    """
    leader = list(range(len(samples)))
    first: dict[tuple[str, str], int] = {}
    for position, sample in enumerate(samples):
        picture = None if sample.label in apart else sample.picture
        shared = {"group": sample.group, "digest": sample.digest, "picture": picture}
        for kind, value in shared.items():
            if value is not None:
                other = first.setdefault((kind, value), position)
                leader[_find(leader, position)] = _find(leader, other)
    members: dict[int, list[Sample]] = {}
    for position, sample in enumerate(samples):
        members.setdefault(_find(leader, position), []).append(sample)
    drawn = sorted(members.values(), key=lambda group: _draw(group, seed))
    return [
        _Unit(
            names=tuple(sample.name for sample in group),
            counts=Counter(str(sample.label) for sample in group),
        )
        for group in drawn
    ]


def _find(leader: list[int], position: int) -> int:
    """Find the leader of a position's unit, and shorten the way there (union-find)."""
    while leader[position] != position:
        leader[position] = leader[leader[position]]
        position = leader[position]
    return position


def _draw(group: Iterable[Sample], seed: int) -> tuple[int, str]:
    """Give a unit's place in the order: of its files' content, and of nothing else."""
    content = sorted(sample.digest or sample.name for sample in group)
    return derive_seed(seed, "split", *content), content[0]


def _sum_counts(units: Iterable[_Unit]) -> dict[str, int]:
    """Add the images of each class over units."""
    totals: Counter[str] = Counter()
    for unit in units:
        totals.update(unit.counts)
    return dict(totals)
