"""Find the photos of a data source and their classes: a folder, a CSV, or lists from Python.

    DIR/train/<class>/…  with optional val (valid, validation) and test, in any case of letters
    DIR/<class>/…        to be split later
    FILE.csv             path,label[,split][,group], see `manifest.py`

Nothing is opened here: whether a file is an image is found by `check.py`. A folder called `train`
is a part where it holds folders, and a class where it holds photos. Class names are compared in
composed Unicode (NFC), since archives made on macOS decompose them.
"""

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from finetune.data.manifest import SPLIT_WORDS, class_name, merge_rows, read_manifest
from finetune.data.walk import Listing, display_name, list_folder, list_images, walk_files
from finetune.data.words import counted
from finetune.errors import DataError, join_names
from finetune.runtime.paths import absolute_path
from finetune.types import Index, LeftOut, Sample, Split

__all__ = [
    "index_pairs",
    "index_source",
    "index_unlabelled",
    "leave_out",
    "list_images",
    "require_trainable",
]

_LAYOUT = "give a folder with one folder a class, the same below train/, val/, test/, or a CSV"
# Endings that are no photo whatever the content: left out without being opened.
_NOT_IMAGES = frozenset(
    f".{ending}"
    for ending in (
        *("avi", "bat", "bin", "cfg", "csv", "db", "doc", "docx", "eps", "gz", "h5", "htm"),
        *("html", "ini", "ipynb", "js", "json", "jsonl", "lock", "log", "mat", "md", "mkv"),
        *("mov", "mp3", "mp4", "npy", "npz", "onnx", "parquet", "pdf", "pickle", "pkl", "ps"),
        *("pt", "pth", "py", "rar", "rst", "safetensors", "sh", "svg", "tar", "tgz", "toml"),
        *("tsv", "txt", "wav", "wmf", "xls", "xlsx", "xml", "yaml", "yml", "zip", "7z"),
    )
)


def index_source(source: str | Path, *, follow_links: bool = False) -> Index:
    """Find the photos of a folder or a CSV.

    Args:
        source: The folder or the CSV.
        follow_links: Take photos that links lead to outside of the folder; else they are left out.

    Returns:
        Samples in the order of their names, with a `split` where the source has one; classes of
        the training part (of all samples where there is none); what was left out, and warnings.

    Raises:
        DataError: It does not exist, holds no photos by class, or contradicts itself.
    """
    path = absolute_path(source)
    if os.path.isdir(path):
        return _without_foreign(_index_folder(path), follow_links=follow_links)
    if not os.path.exists(path):
        raise DataError(f"there is no folder or file {path}", hint=_LAYOUT)
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise DataError(f"{path} is neither a folder nor a CSV", hint=_LAYOUT)
    samples, warnings = read_manifest(path)
    found = _index(path.parent, samples, warnings=warnings)
    return _without_foreign(found, follow_links=follow_links)


def index_unlabelled(folder: Path) -> Index | None:
    """Find the photos that stand directly in a folder, without labels.

    Returns:
        The samples, and no classes; None where the folder has folders in it, which are classes or
        parts.

    Raises:
        DataError: There are no photos, or the folder cannot be listed.
    """
    root = absolute_path(folder)
    listing = list_folder(root)
    if listing.folders:
        return None
    photos, others = _by_ending(listing.files, root)
    if not photos:
        raise DataError(f"{root} holds no images", hint=_LAYOUT)
    samples = tuple(Sample(path=file, name=file.name) for file in photos)
    left_out = sorted([*_left_out(root, listing.left_out), *others], key=lambda item: item.name)
    return Index(root=root, samples=samples, classes=(), left_out=tuple(left_out))


def leave_out(
    index: Index, names: Collection[str], *, reason: str, warnings: Sequence[str] = ()
) -> Index:
    """Leave samples out of an index, by name; classes that lose all of their photos go with them.

    Args:
        index: Of which to leave out.
        names: Of samples; others play no part.
        reason: Stands beside each.
        warnings: Are added.

    Raises:
        DataError: No photo is left.
    """
    gone = [sample for sample in index.samples if sample.name in names]
    kept = tuple(sample for sample in index.samples if sample.name not in names)
    if not kept:
        raise DataError(f"no photo of {index.root} is left: all are {reason}")
    left_out = [*index.left_out, *(LeftOut(sample.name, reason) for sample in gone)]
    return replace(
        _index(index.root, kept, warnings=[*index.warnings, *warnings]),
        left_out=tuple(sorted(left_out, key=lambda item: item.name)),
    )


def index_pairs(paths: Sequence[str | Path], labels: Sequence[object]) -> Index:
    """Make an index of paths and labels that a Python user holds.

    Args:
        paths: N paths of files.
        labels: N labels; their texts are the class names.

    Raises:
        DataError: The lengths differ, a label is missing, a file does not exist, or a file has
            two labels.
    """
    if len(paths) != len(labels):
        raise DataError(f"got {counted(len(paths), 'path')} but {counted(len(labels), 'label')}")
    if not len(paths):
        raise DataError("there are no paths")
    files = [absolute_path(path) for path in paths]
    names = ["" if _is_missing(label) else class_name(str(label)) for label in labels]
    unlabelled = [str(path) for path, name in zip(paths, names, strict=True) if not name]
    if unlabelled:
        has = counted(len(unlabelled), "path", "has/have")
        raise DataError(f"{has} no label: {join_names(unlabelled)}")
    missing = [str(path) for path, file in zip(paths, files, strict=True) if not file.is_file()]
    if missing:
        lead = counted(len(missing), "path", "leads/lead")
        raise DataError(f"{lead} to no file: {join_names(missing)}")
    root = _common_folder(files)
    samples = [
        Sample(path=file, name=file.relative_to(root).as_posix(), label=name)
        for file, name in zip(files, names, strict=True)
    ]
    merged, warnings = merge_rows(samples, "the list of paths")
    return _index(root, merged, warnings=warnings)


def require_trainable(index: Index) -> None:
    """Check that an index can be trained on: two classes, and no others in val and test.

    Raises:
        DataError: There is no training part, one class only, or a class that train lacks.
    """
    has_parts = any(sample.split is not None for sample in index.samples)
    train = index.part("train") if has_parts else index.samples
    if not train:
        raise DataError(f"{index.root} has no training images", hint=_LAYOUT)
    classes = {str(sample.label) for sample in train}
    if len(classes) < 2:
        raise DataError(
            f"{index.root} has one class only: {join_names(sorted(classes))}; "
            "telling classes apart needs two",
            hint=_one_class_hint(index),
        )
    for split in ("val", "test"):
        foreign = sorted({str(sample.label) for sample in index.part(split)} - classes)
        if foreign:
            raise DataError(
                f"{split} has classes that train lacks: {join_names(foreign)}",
                hint=f"train has: {join_names(sorted(classes), limit=10)}",
            )


def _index_folder(root: Path) -> Index:
    """Index a folder by its layout."""
    listing = list_folder(root)
    parts = _find_parts(listing, root)
    if parts:
        return _index_parts(root, listing, parts)
    if not listing.folders:
        raise DataError(
            f"{root} holds {counted(len(listing.files), 'file')} but no class folders"
            if listing.files
            else f"{root} is empty",
            hint=_LAYOUT,
        )
    samples, left_out = _read_classes(root, listing, split=None)
    return _finished(root, samples, left_out)


def _find_parts(listing: Listing, root: Path) -> dict[Split, Path]:
    """Find the folders that are parts: they have the name of one and hold folders."""
    parts: dict[Split, Path] = {}
    named = [folder for folder in listing.folders if folder.name.lower() in SPLIT_WORDS]
    holding = [folder for folder in named if list_folder(folder).folders]
    for folder in holding:
        split = SPLIT_WORDS[folder.name.lower()]
        if split in parts:
            raise DataError(
                f"{root} has two folders for {split}: {parts[split].name} and {folder.name}"
            )
        parts[split] = folder
    # Kaggle's layout: `test` without classes, beside a `train` with them, is still a part.
    if "train" in parts:
        for folder in named:
            parts.setdefault(SPLIT_WORDS[folder.name.lower()], folder)
    return parts


def _index_parts(root: Path, listing: Listing, parts: dict[Split, Path]) -> Index:
    """Index a folder whose folders are parts."""
    samples: list[Sample] = []
    left_out = _left_out(root, listing.left_out)
    left_out += [LeftOut(display_name(file.relative_to(root)), _LOOSE) for file in listing.files]
    warnings: list[str] = []
    for split, folder in parts.items():
        found, skipped = _read_classes(root, list_folder(folder), split=split)
        samples += found
        left_out += skipped
        if not found and skipped:
            warnings.append(f"{folder.name}/ holds no class folders with images: it is left out")
    others = [folder for folder in listing.folders if folder not in parts.values()]
    if others:
        names = join_names([folder.name for folder in others])
        warnings.append(f"beside {', '.join(parts)} these folders are left out: {names}")
        left_out += [LeftOut(folder.name, "a folder beside the parts") for folder in others]
    return _finished(root, samples, left_out, warnings)


_LOOSE = "outside a class folder"
_EMPTY = "a folder without images"
_FOREIGN = "a link out of the data folder"


def _read_classes(
    root: Path, listing: Listing, *, split: Split | None
) -> tuple[list[Sample], list[LeftOut]]:
    """Read class folders; files beside them are left out."""
    left_out = _left_out(root, listing.left_out)
    left_out += [LeftOut(display_name(file.relative_to(root)), _LOOSE) for file in listing.files]
    samples: list[Sample] = []
    for folder in listing.folders:
        files, skipped = walk_files(folder, root=root)
        left_out += skipped
        photos, others = _by_ending(files, root)
        left_out += others
        label = class_name(folder.name)
        samples += [
            Sample(path=file, name=file.relative_to(root).as_posix(), label=label, split=split)
            for file in photos
        ]
        name = folder.relative_to(root).as_posix()
        if not photos and all(one.name != name for one in skipped):
            left_out.append(LeftOut(name, _EMPTY))
    return samples, left_out


def _by_ending(files: Iterable[Path], root: Path) -> tuple[list[Path], list[LeftOut]]:
    """Part files into those that may be photos and those that are none by their ending."""
    photos: list[Path] = []
    others: list[LeftOut] = []
    for file in files:
        if file.suffix.lower() in _NOT_IMAGES:
            reason = f"no image by its ending {file.suffix}"
            others.append(LeftOut(file.relative_to(root).as_posix(), reason))
        else:
            photos.append(file)
    return photos, others


def _left_out(root: Path, entries: Iterable[tuple[Path, str]]) -> list[LeftOut]:
    """Name what a listing left out."""
    return [LeftOut(display_name(path.relative_to(root)), reason) for path, reason in entries]


def _finished(
    root: Path, samples: list[Sample], left_out: list[LeftOut], warnings: Sequence[str] = ()
) -> Index:
    """Make the index of a folder, with warnings of what a person should look at."""
    if not samples:
        raise DataError(f"{root} holds no images in class folders", hint=_LAYOUT)
    left_out = sorted(left_out, key=lambda item: item.name)
    loose = [item.name for item in left_out if item.reason == _LOOSE]
    empty = [item.name for item in left_out if item.reason == _EMPTY]
    said = list(warnings)
    if loose:
        files = counted(len(loose), "file", "stands/stand")
        said.append(f"{files} outside the class folders, left out: {join_names(loose)}")
    if empty:
        folders = counted(len(empty), "folder", "holds/hold")
        said.append(f"{folders} no images, left out: {join_names(empty)}")
    ordered = tuple(sorted(samples, key=lambda sample: sample.name))
    index = _index(root, ordered, warnings=said)
    return replace(index, left_out=tuple(left_out))


def _index(root: Path, samples: tuple[Sample, ...], *, warnings: Sequence[str]) -> Index:
    """Make an index with the classes of its training part."""
    train = [sample for sample in samples if sample.split in ("train", None)] or samples
    classes = tuple(sorted({str(sample.label) for sample in train}))
    return Index(root=root, samples=samples, classes=classes, warnings=tuple(warnings))


def _without_foreign(index: Index, *, follow_links: bool) -> Index:
    """Leave out what links lead to outside of the folder: a stranger's data stays within itself."""
    home = index.root.resolve()
    foreign = [one for one in index.samples if not one.path.resolve().is_relative_to(home)]
    if follow_links or not foreign:
        return index
    links = counted(len(foreign), "photo", "is a link/are links")
    said = f"{links} out of {index.root}, left out: {join_names([one.name for one in foreign])}"
    hint = "finetune run --set data.follow_links=true takes them"
    if len(foreign) == len(index.samples):
        raise DataError(said, hint=hint)
    names = {one.name for one in foreign}
    return leave_out(index, names, reason=_FOREIGN, warnings=[f"{said}; {hint}"])


def _is_missing(label: object) -> bool:
    """Tell None, NaN and what pandas has for a missing value."""
    try:
        return label is None or bool(label != label)
    except (TypeError, ValueError):  # pandas.NA is neither equal nor different
        return True


def _one_class_hint(index: Index) -> str:
    """Point at a folder further down where that is where the classes are."""
    below = index.root / index.classes[0] if index.classes else index.root
    if below.is_dir() and len(list_folder(below).folders) > 1:
        return f"the classes may be in {below}: give that folder"
    return _LAYOUT


def _common_folder(files: Sequence[Path]) -> Path:
    """Find the deepest folder that holds all files."""
    try:
        return Path(os.path.commonpath([file.parent for file in files]))
    except ValueError as error:  # two drives of Windows
        raise DataError("the paths stand on different drives; they must share a folder") from error
