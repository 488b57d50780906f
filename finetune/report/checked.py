"""What `finetune check --out` wrote of the data of a run, read back for the page of the run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import DataError
from finetune.report.findings import SCHEMA_VERSION, describe_row

if TYPE_CHECKING:
    from finetune.report.material import Material

__all__ = ["Checked", "Found", "read_checked"]

NUM_NAMED = 5  # findings told in words; the document has all
# What the page of a run tells of a check, the gravest first, by the kinds of findings.
_SUSPECTS, _NEAR = "Suspected labels", "Near-duplicates"
_GROUPS = {
    "Leaks across parts": ("leak", "near_leak"),
    "Conflicting labels": ("conflict", "near_conflict"),
    _SUSPECTS: ("suspect_label",),
    _NEAR: ("near_duplicate",),
}
_NO_PHOTO = frozenset(("empty", "truncated", "unreadable", "hidden", "foreign"))
# What reading another JSON file, or no JSON file, was seen to raise.
_NO_DOCUMENT = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Found:
    """Findings that a person reads as one.

    Attributes:
        title: What they are.
        was_sought: Whether they were looked for at all.
        number: How many there are.
        words: The first, a line each.
    """

    title: str
    was_sought: bool
    number: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """A document of findings.

    Attributes:
        file: Its name.
        data: What was checked.
        num_images: Photos that could be read.
        are_labels_judged: Whether a network's features were asked about labels.
        are_compared: Whether near-duplicates were searched.
        found: Of every group, in their order.
        photos: Photos that any finding is about.
        classes: Names.
    """

    file: str
    data: str
    num_images: int
    are_labels_judged: bool
    are_compared: bool
    found: tuple[Found, ...]
    photos: frozenset[str]
    classes: frozenset[str]

    def is_of(self, material: Material) -> bool:
        """Whether it may be of the data of a run: it names one of its photos.

        Where no finding is about a photo, a class that both have must do.
        """
        if not self.photos:
            return not self.classes.isdisjoint(material.classes)
        return any(name in self.photos for name in _names(material))


def read_checked(path: Path) -> Checked:
    """Read what `finetune check --out` wrote.

    Raises:
        DataError: It cannot be read, or is no such document.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _checked(document, path.name)
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    except _NO_DOCUMENT as error:
        raise _refused(path, "is no document of finetune check") from error


def _checked(document: Mapping[str, Any], file: str) -> Checked:
    """Take what the page tells; whatever is not there, or of another type, raises."""
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(document["schema_version"])
    rows = document["findings"]
    about_photos = (row for row in rows if row["kind"] not in _NO_PHOTO)
    are_judged = document["backbone"] is not None
    are_compared = bool(document["are_near_duplicates_searched"])
    sought = {_SUSPECTS: are_judged, _NEAR: are_compared}
    return Checked(
        file=file,
        data=str(document["data"]),
        num_images=int(document["num_images"]),
        are_labels_judged=are_judged,
        are_compared=are_compared,
        found=tuple(_found(title, rows, sought.get(title, True)) for title in _GROUPS),
        photos=frozenset(str(one["path"]) for row in about_photos for one in row["files"]),
        classes=frozenset(name for part in document["counts"].values() for name in part),
    )


def _found(title: str, rows: list[Mapping[str, Any]], was_sought: bool) -> Found:
    """Count the findings of a group, and tell the first."""
    of_group = [row for kind in _GROUPS[title] for row in rows if row["kind"] == kind]
    words = tuple(map(describe_row, of_group[:NUM_NAMED]))
    return Found(title, was_sought, len(of_group), words)


def _names(material: Material) -> Iterator[str]:
    """Name the photos of a run, those among them that it left out."""
    for part in material.parts.values():
        yield from part.answers.names
    yield from (one.name for one in material.course.left_out)
    # Where the parts cannot be read, the answers still name photos.
    with (
        suppress(OSError, csv.Error),
        (material.folder / "split.csv").open(
            encoding="utf-8", errors="replace", newline=""
        ) as rows,
    ):
        yield from (row.get("path", "") for row in csv.DictReader(rows))


def _refused(path: Path, what: str) -> DataError:
    """Say that a file cannot be used, and what writes one that can."""
    return DataError(f"{path} {what}", hint="finetune check DIR --out FILE.json writes one")
