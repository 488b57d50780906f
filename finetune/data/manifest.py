"""A CSV of photos: `path,label[,split][,group]`, paths relative to the CSV.

Comma, semicolon or tab, whichever the header has; UTF-8 with or without a byte-order mark. Problems
name the lines. Further columns are kept, by their names in lower case: an evaluation gives figures
by them. A path that leads out of the CSV's folder is refused: names in tables are relative to it,
and a data set that is moved or shared must hold together.
"""

import csv
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.words import counted
from finetune.errors import DataError, join_names, nearest
from finetune.types import Sample, Split

__all__ = ["SPLIT_WORDS", "class_name", "merge_rows", "read_manifest"]

# Every word for a part that folders and manifests may use, in lower case.
SPLIT_WORDS: dict[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_COLUMNS = ("path", "label", "split", "group")
_HINT = "the header is path,label with optional split and group; paths are relative to the CSV"


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of a manifest; the texts as they stand there."""

    line: int
    path: str
    label: str
    split: str
    group: str
    extra: tuple[tuple[str, str], ...]


def class_name(text: str) -> str:
    """Give the one spelling of a class name: composed accents (NFC), no space around it."""
    return unicodedata.normalize("NFC", text).strip()


def read_manifest(path: Path) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Read a CSV of photos.

    Args:
        path: Absolute path of the CSV.

    Returns:
        The samples in the order of their names, and warnings.

    Raises:
        DataError: It cannot be read, lacks a column, or its rows are wrong; the sentence names
            the lines or the files.
    """
    rows = _rows(path)
    _refuse(rows, path, lambda row: not row.path.strip(), "without a path")
    _refuse(rows, path, lambda row: not row.label.strip(), "without a label")
    _check_splits(rows, path)
    found = [(row, _locate(row.path, path.parent)) for row in rows]
    outside = [row.path for row, file in found if file is None]
    if outside:
        raise DataError(
            f"{path.name} has {counted(len(outside), 'path', 'that leads/that lead')} out of its "
            f"folder: {join_names(outside)}",
            hint="put the CSV into the folder above all photos, with paths relative to it",
        )
    located = [(row, file) for row, file in found if file is not None]
    missing = [row.path for row, file in located if not os.path.isfile(file)]
    if missing:
        raise DataError(
            f"{path.name} has {counted(len(missing), 'path', 'that leads/that lead')} to no file: "
            f"{join_names(missing)}",
            hint=f"paths are relative to {path.parent}",
        )
    return merge_rows([_sample(row, file, path.parent) for row, file in located], path.name)


def merge_rows(
    samples: Iterable[Sample], source: str
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Keep each file once, in the order of names, and say so.

    Raises:
        DataError: A file has two labels, two splits or two groups.
    """
    kept: dict[str, Sample] = {}
    repeated: list[str] = []
    conflicts: list[str] = []
    for sample in samples:
        first = kept.setdefault(sample.name, sample)
        if first is sample:
            continue
        repeated.append(sample.name)
        for word in ("label", "split", "group"):
            one, other = getattr(first, word), getattr(sample, word)
            if one != other:
                conflicts.append(f"{sample.name} ({word} {one} and {other})")
    if conflicts:
        raise DataError(f"{source} contradicts itself: {join_names(conflicts)}")
    warnings: list[str] = []
    if repeated:
        rows = counted(len(repeated), "row")
        files = join_names(sorted(set(repeated)))
        warnings.append(f"{source} repeats a file in {rows}, counted once: {files}")
    return tuple(kept[name] for name in sorted(kept)), tuple(warnings)


def _rows(path: Path) -> list[_Row]:
    """Read the rows, each with its line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header_line = file.readline()
            delimiter = max(",;\t", key=header_line.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = _header(next(reader, []), path)
            rows = [
                _row(fields, header, (path, reader.line_num)) for fields in reader if any(fields)
            ]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}",
            hint="save it as UTF-8 CSV",
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} is no well-formed CSV: {error}", hint=_HINT) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if not rows:
        raise DataError(f"{path} holds no rows", hint=_HINT)
    return rows


def _header(names: Sequence[str], path: Path) -> list[str]:
    """Check the names of the columns; other columns may stand among them."""
    header = [name.strip().lower() for name in names]
    twice = [name for name in _COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"{path} has two columns called {twice[0]!r}", hint=_HINT)
    for name in ("path", "label"):
        if name not in header:
            near = nearest(name, header)
            tail = f"; is it {near!r}?" if near else ""
            seen = ", ".join(header) or "none"
            raise DataError(f"{path} has no column {name!r}, it has: {seen}{tail}", hint=_HINT)
    return header


def _row(fields: Sequence[str], header: Sequence[str], place: tuple[Path, int]) -> _Row:
    """Read one row; a short one lacks its last values."""
    path, line = place
    if len(fields) > len(header):
        raise DataError(
            f"{path}:{line} has {len(fields)} values, the header {len(header)}",
            hint='a value that holds the delimiter stands in quotes: "a, b.jpg"',
        )
    values = dict(zip(header, fields, strict=False))
    path_text, label, split, group = (values.get(name, "") for name in _COLUMNS)
    further = [(name, value.strip()) for name, value in values.items() if name not in _COLUMNS]
    extra = tuple((name, value) for name, value in further if name and value)
    return _Row(line, path_text, label, split, group, extra)


def _refuse(rows: Sequence[_Row], path: Path, is_wrong: Callable[[_Row], bool], what: str) -> None:
    """Raise with the lines of the rows that are wrong, if any are."""
    lines = [row.line for row in rows if is_wrong(row)]
    if lines:
        raise DataError(f"{path} has {counted(len(lines), 'row')} {what}: line {join_names(lines)}")


def _check_splits(rows: Sequence[_Row], path: Path) -> None:
    """Check the words of the column `split`: known ones, and in every row or in none."""
    words = {row.split.strip().lower() for row in rows}
    unknown = sorted(words - set(SPLIT_WORDS) - {""})
    if unknown:
        lines = [row.line for row in rows if row.split.strip().lower() == unknown[0]]
        raise DataError(
            f"{path} has the split {unknown[0]!r} (line {join_names(lines)}); "
            f"allowed: {', '.join(SPLIT_WORDS)}"
        )
    if len(words) > 1:
        _refuse(rows, path, lambda row: not row.split.strip(), "without a split beside others")


def _locate(text: str, folder: Path) -> Path | None:
    """Find the file that a path means; None where it leads out of the folder."""
    spellings = dict.fromkeys((text, text.strip(), text.strip().replace("\\", "/")))
    places = [Path(os.path.normpath(folder / spelling)) for spelling in spellings]
    inside = [place for place in places if place.is_relative_to(folder)]
    existing = [place for place in inside if os.path.isfile(place)]  # False also of a name too long
    return next(iter([*existing, *inside]), None)


def _sample(row: _Row, file: Path, root: Path) -> Sample:
    """Make a sample of a row."""
    return Sample(
        path=file,
        name=file.relative_to(root).as_posix(),
        label=class_name(row.label),
        split=SPLIT_WORDS.get(row.split.strip().lower()),
        group=row.group.strip() or None,
        extra=row.extra,
    )
