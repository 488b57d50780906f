"""The page of `finetune compare`: the verdict, what each run costs, every class, and the photos.

It is made of what was compared and of the photos, by the templates of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.data.words import counted
from finetune.evaluate.comparison import Answer, Comparison, Disagreement, p_value_words
from finetune.report.comparison import cost_words, ranked_classes
from finetune.report.page import Head, render_page, write_page
from finetune.report.photos import Photo, photo_root, read_photos
from finetune.report.source import Section
from finetune.report.story import PART_WORDS
from finetune.report.words import as_percent, count

__all__ = ["write_comparison_page"]

_NUM_PICTURED = 24  # photos of a group that are shown
_NUM_NAMED = 200  # of a group that are told in words below; the document has all
_MAX_PHOTOS = 240  # small pictures of a page: 2 MB


@dataclass(frozen=True, slots=True)
class _Group:
    """Photos of which the same runs are right.

    Attributes:
        title: Which runs these are.
        photos: The surest wrong answers first.
        num_pictured: How many of them are shown.
    """

    title: str
    photos: Sequence[Disagreement]
    num_pictured: int

    @property
    def pictured(self) -> Sequence[Disagreement]:
        """Those that are shown."""
        return self.photos[: self.num_pictured]

    @property
    def told(self) -> Sequence[Disagreement]:
        """Those that are not."""
        return self.photos[self.num_pictured :]


def write_comparison_page(comparison: Comparison, path: Path, *, data: Path | None) -> None:
    """Write the page.

    Args:
        comparison: What `compare_runs` gives.
        path: The HTML file.
        data: Folder or CSV that the names of photos are relative to; None where it is not known.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    groups = _group(comparison)
    names = [one.path for group in groups for one in group.pictured]
    photos = read_photos(photo_root(data) if data else None, names)
    keys = {name: f"photo-{number}" for number, name in enumerate(photos)}
    sections = [
        _verdict(comparison),
        _runs(comparison),
        *(_difference(comparison, number) for number in range(len(comparison.differences))),
        _photos(comparison, groups, photos, keys),
    ]
    pictures = {keys[name]: photo for name, photo in photos.items()}
    write_page(render_page(_head(comparison), sections, pictures), path)


def _head(comparison: Comparison) -> Head:
    """Say what was compared."""
    reference, *others = (run.name for run in comparison.runs)
    what = others[0] if len(others) == 1 else f"{len(others)} runs"
    photos = f"{count(comparison.num_samples)} {PART_WORDS[comparison.split]} photos"
    return Head(
        title=f"{what} compared with {reference}",
        subtitle=f"{photos} of {counted(len(comparison.classes), 'class')}, the same in every run",
        origin="from the answers of the runs and the photos; "
        "finetune compare RUN RUN --out FILE.html makes it anew",
    )


def _verdict(comparison: Comparison) -> Section:
    """Which run is better, by how much, and what limits that."""
    values = {
        "differences": [
            (f"difference-{number}", one, _p_value(one.corrected_p_value))
            for number, one in enumerate(comparison.differences)
        ],
        "reference": comparison.runs[0].name,
        "are_all_told": all(one.is_told for one in comparison.differences),
        "notes": comparison.notes,
    }
    return Section("verdict", "Verdict", "verdict.html", values)


def _runs(comparison: Comparison) -> Section:
    """Quality of each run, and beside it what it costs."""
    values = {
        "rows": [(run, cost_words(run.cost)) for run in comparison.runs],
        "part_word": PART_WORDS[comparison.split],
    }
    return Section("runs", "Runs side by side", "runs.html", values)


def _difference(comparison: Comparison, number: int) -> Section:
    """Every class of one run beside those of the reference."""
    one = comparison.differences[number]
    values = {
        "one": one,
        "p_value": p_value_words(one.p_value),
        "rows": [(row, _p_value(row.corrected_p_value)) for row in ranked_classes(one)],
        "part_word": PART_WORDS[comparison.split],
    }
    title = f"Class by class: {one.run} less {one.reference}"
    return Section(f"difference-{number}", title, "difference.html", values)


def _photos(
    comparison: Comparison,
    groups: Sequence[_Group],
    photos: Mapping[str, Photo],
    keys: Mapping[str, str],
) -> Section:
    """The photos on which the runs differ, with the answer of each."""
    names = [run.name for run in comparison.runs]
    values = {
        "groups": [
            {
                "title": group.title,
                "num_photos": len(group.photos),
                "pictured": [
                    (keys[one.path], photos[one.path], one.label, _paired(names, one))
                    for one in group.pictured
                ],
                "named": [_words(names, one) for one in group.told[:_NUM_NAMED]],
                "num_more": max(0, len(group.told) - _NUM_NAMED),
            }
            for group in groups
        ],
        "num_photos": len(comparison.disagreements),
        "num_samples": comparison.num_samples,
        "num_missing": sum(photo.uri is None for photo in photos.values()),
        "num_shown": len(photos),
        "part_word": PART_WORDS[comparison.split],
    }
    return Section("photos", "Photos answered differently", "comparison_photos.html", values)


def _group(comparison: Comparison) -> list[_Group]:
    """Put photos together of which the same runs are right; those of which none is come last."""
    by_right: dict[tuple[bool, ...], list[Disagreement]] = {}
    for one in comparison.disagreements:
        by_right.setdefault(tuple(answer.is_correct for answer in one.answers), []).append(one)
    order = sorted(by_right, key=lambda right: (not any(right), -len(by_right[right]), right))
    num_pictured = min(_NUM_PICTURED, _MAX_PHOTOS // max(1, len(order)))
    names = [run.name for run in comparison.runs]
    return [
        _Group(_title(names, right), sorted(by_right[right], key=_surest_first), num_pictured)
        for right in order
    ]


def _title(names: Sequence[str], right: Sequence[bool]) -> str:
    """Say which runs are right about photos."""
    marked = list(zip(names, right, strict=True))
    fine = [name for name, is_right in marked if is_right]
    wrong = [name for name, is_right in marked if not is_right]
    if not fine:
        return "All are wrong, not all alike"
    if len(fine) == 1:
        return f"Only {fine[0]} is right"
    if len(wrong) == 1:
        return f"Only {wrong[0]} is wrong"
    return f"Right are {' and '.join(fine)}; wrong are {' and '.join(wrong)}"


def _surest_first(one: Disagreement) -> tuple[float, str]:
    """Give what photos are sorted by: the surest wrong answer first."""
    return -max(answer.probability for answer in one.answers if not answer.is_correct), one.path


def _paired(names: Sequence[str], one: Disagreement) -> list[tuple[str, Answer]]:
    """Put the name of each run before its answer."""
    return list(zip(names, one.answers, strict=True))


def _words(names: Sequence[str], one: Disagreement) -> str:
    """Say in a line what the runs take a photo for."""
    said = [
        f"{name} says {answer.predicted} ({as_percent(answer.probability)})"
        for name, answer in _paired(names, one)
    ]
    return f"{one.path}, labelled {one.label}: {', '.join(said)}"


def _p_value(value: float) -> str:
    """Write a p-value below a heading that says p."""
    return p_value_words(value).removeprefix("p ").removeprefix("= ")
