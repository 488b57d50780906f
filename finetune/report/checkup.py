"""The page of `finetune check`: what was found, with small pictures of the photos that it is about.

It is made of the document that `--out` writes and of the photos, by the templates of the report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.report.findings import describe_row
from finetune.report.page import Head, render_page, write_page
from finetune.report.photos import Photo, read_photos
from finetune.report.source import Section

__all__ = ["write_findings_page"]

_NUM_PICTURED = 24  # findings of a kind that are shown with their photos
_NUM_NAMED = 200  # of a kind that are told in words below; the document has all
_NUM_ABREAST = 6  # photos of one finding: of forty copies a person needs to see no more
_MAX_PHOTOS = 240  # small pictures of a page: 2 MB
_NO_PICTURE = frozenset(("empty", "truncated", "unreadable", "hidden", "foreign"))


@dataclass(frozen=True, slots=True)
class _Pictured:
    """A finding with its photos: anchor, what the document says of the file, and picture."""

    detail: str
    photos: Sequence[tuple[str, Mapping[str, Any], Photo]]


def write_findings_page(document: Mapping[str, Any], path: Path, *, root: Path) -> None:
    """Write the page.

    Args:
        document: What `findings_document` gives.
        path: The HTML file.
        root: Folder that the names are relative to.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    by_kind = _by_kind(document)
    names = list(dict.fromkeys(_pictured_names(by_kind)))[:_MAX_PHOTOS]
    photos = read_photos(root, names)
    keys = {name: f"photo-{number}" for number, name in enumerate(photos)}
    sections = [_summary(document)]
    for kind, rows in by_kind.items():
        sections.append(_section(document["kinds"][kind], kind, rows, photos, keys))
    head = Head(
        title=f"Check of {Path(document['data']).name}",
        subtitle=_subtitle(document),
        origin="from the findings and the photos; finetune check DIR --out FILE.json makes it anew",
    )
    text = render_page(head, sections, {keys[name]: photo for name, photo in photos.items()})
    write_page(text, path)


def _by_kind(document: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Give the findings of each kind that was found, the gravest first."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for finding in document["findings"]:
        by_kind.setdefault(finding["kind"], []).append(finding)
    return {kind: by_kind[kind] for kind in document["kinds"] if kind in by_kind}


def _pictured_names(by_kind: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Name the photos that are shown."""
    for kind, rows in by_kind.items():
        if kind not in _NO_PICTURE:
            for finding in rows[:_NUM_PICTURED]:
                yield from (file["path"] for file in finding["files"][:_NUM_ABREAST])


def _subtitle(document: Mapping[str, Any]) -> str:
    """Say what was looked at."""
    words = f"{document['num_images']:,} images, {document['num_warnings']:,} warnings, "
    words += f"{document['num_notes']:,} notes"
    return words if document["backbone"] is None else f"{words}; judged by {document['backbone']}"


def _summary(document: Mapping[str, Any]) -> Section:
    """Count what was found, and the photos by class."""
    counts = document["counts"]
    values = {
        "kinds": [(kind, row) for kind, row in document["kinds"].items() if row["num_findings"]],
        "counts": counts,
        "names": sorted({name for part in counts.values() for name in part}),
        "is_compared": document["are_near_duplicates_searched"],
    }
    return Section("summary", "What was found", "check_summary.html", values)


def _section(
    about: Mapping[str, Any],
    kind: str,
    rows: Sequence[Mapping[str, Any]],
    photos: Mapping[str, Photo],
    keys: Mapping[str, str],
) -> Section:
    """Tell the findings of one kind."""
    pictured = []
    for finding in [] if kind in _NO_PICTURE else rows[:_NUM_PICTURED]:
        files = [file for file in finding["files"][:_NUM_ABREAST] if file["path"] in photos]
        shown = [(keys[file["path"]], file, photos[file["path"]]) for file in files]
        if shown:
            pictured.append(_Pictured(finding["detail"], shown))
    told = rows[len(pictured) :]
    values = {
        "about": about,
        "pictured": pictured,
        "named": [describe_row(finding) for finding in told[:_NUM_NAMED]],
        "num_more": max(0, len(told) - _NUM_NAMED),
    }
    return Section(kind, kind.replace("_", " ").capitalize(), "findings.html", values)
