"""`finetune compare`: whether one run is better than another, on the same images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.border import UsageError
from finetune.cli.options import Debug, Json, at_home, require_file
from finetune.runtime.paths import home_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.cli.render import Screen
    from finetune.evaluate.comparison import ClassDifference, Comparison, Difference
    from finetune.report.runs import FinishedRun

__all__ = ["compare"]

_NUM_SHOWN = 10  # images and classes that are spelt out; --out and --json have all
_FORMATS = (".json", ".html")  # of --out


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN", help="Run folders; the first is the reference."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.json|FILE.html",
            help="Write all of it, or a page.",
            callback=at_home,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare finished runs on the same images: which is better, by how much, at what cost.

    Example: finetune compare runs/photos-resnet18-001 runs/photos-efficientnet_b0-001
    """
    _check_runs(runs)
    if out is not None:
        require_file(out, _FORMATS)
    from finetune.cli.render import Screen, print_json
    from finetune.evaluate.comparison import compare_runs
    from finetune.report.comparison import comparison_document
    from finetune.report.runs import read_runs, shared_split

    found = read_runs(runs)
    split = shared_split(found)
    comparison = compare_runs([run.answers(split) for run in found])
    if out is not None:
        _write(comparison, out, reference=found[0])
        Screen(sys.stderr).line(f"comparison written to {out}")
    if json:
        print_json(comparison_document(comparison))
    else:
        _show(comparison, Screen(sys.stdout), out)


def _check_runs(runs: list[str]) -> None:
    """Refuse fewer than two runs, and one named twice."""
    if len(runs) < 2:
        raise UsageError("compare needs two runs or more", hint="finetune compare RUN RUN")
    places = [home_path(run).resolve() for run in runs]
    twice = [run for run, place in zip(runs, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is named twice", hint="name each run once")


def _write(comparison: Comparison, out: Path, *, reference: FinishedRun) -> None:
    """Write the document, or the page with the photos of the reference."""
    from finetune.runtime.files import make_folder

    make_folder(out.parent)
    if out.suffix.lower() == ".html":
        from finetune.report.comparison_page import write_comparison_page

        write_comparison_page(comparison, out, data=reference.data())
    else:
        from finetune.report.comparison import comparison_document, write_comparison

        write_comparison(comparison_document(comparison), out)


def _show(comparison: Comparison, screen: Screen, out: Path | None) -> None:
    """Write what was compared: runs, differences, images, and the verdicts last."""
    from finetune.cli.render import count

    classes = len(comparison.classes)
    images = f"{count(comparison.num_samples)} images of {classes} classes"
    screen.line(f"{comparison.split}: {images}, the same in every run", style="bold")
    _show_runs(comparison, screen)
    for difference in comparison.differences:
        _show_difference(difference, screen)
    _show_images(comparison, screen, out)
    screen.line()
    for note in comparison.notes:
        screen.warn(note)
    for difference in comparison.differences:
        screen.line(difference.verdict, style="bold")


def _show_runs(comparison: Comparison, screen: Screen) -> None:
    """Write the figures of every run, and below what each cost."""
    from finetune.cli.render import Column, figure
    from finetune.report.comparison import cost_words

    name = Column("run", "left", is_shortened=True)
    figures = [name, Column("accuracy"), Column("95 %", "left"), Column("macro F1")]
    rows = []
    for run in comparison.runs:
        low, high = run.accuracy_interval
        interval = f"{low:.3f} to {high:.3f}"
        rows.append([run.name, figure(run.accuracy), interval, figure(run.macro_f1)])
    screen.table(figures, rows)
    screen.line()
    costs = [cost_words(run.cost) for run in comparison.runs]
    columns = [name, *(Column(title) for title in costs[0])]
    named = zip(comparison.runs, costs, strict=True)
    screen.table(columns, [[run.name, *cost.values()] for run, cost in named])


def _show_difference(one: Difference, screen: Screen) -> None:
    """Write how one run differs from the reference, and in which classes most."""
    from finetune.cli.render import Column, count
    from finetune.evaluate.comparison import p_value_words
    from finetune.report.comparison import ranked_classes

    screen.line()
    screen.line(f"{one.run} less {one.reference}, in points", style="bold")
    screen.line(f"  accuracy  {_points(one.accuracy, one.accuracy_interval)}")
    screen.line(f"  macro F1  {_points(one.macro_f1, one.macro_f1_interval)}")
    screen.line(
        f"  right alone on {count(one.num_only_run)} and {count(one.num_only_reference)} images: "
        f"{p_value_words(one.p_value)} by McNemar's exact test"
    )
    differing = [row for row in ranked_classes(one) if row.recall != row.reference_recall]
    if not differing:
        return
    columns = [Column("class", "left", is_shortened=True), Column("recall"), Column("reference")]
    columns += [Column("points"), Column("95 %", "left"), Column("p, corrected"), Column("images")]
    screen.table(columns, [_class_row(row) for row in differing[:_NUM_SHOWN]])
    if len(differing) > _NUM_SHOWN:
        screen.line(f"  and {count(len(differing) - _NUM_SHOWN)} more classes")


def _class_row(row: ClassDifference) -> list[str]:
    """Write how two runs differ in one class."""
    from finetune.cli.render import count, figure
    from finetune.report.words import points, points_between

    return [
        row.name,
        figure(row.recall),
        figure(row.reference_recall),
        points(row.difference),
        points_between(row.interval),
        figure(row.corrected_p_value),
        count(row.support),
    ]


def _show_images(comparison: Comparison, screen: Screen, out: Path | None) -> None:
    """Write the first images of which not all runs say the same."""
    from finetune.cli.render import Column, count, figure

    found = comparison.disagreements
    screen.line()
    screen.line(f"images answered differently: {count(len(found))}", style="bold")
    if not found:
        return
    columns = [
        Column("path", "left", is_shortened=True),
        Column("label", "left", is_shortened=True),
    ]
    for run in comparison.runs:
        columns += [Column(run.name, "left", is_shortened=True), Column("probability")]
    rows = []
    for one in found[:_NUM_SHOWN]:
        cells: Sequence[str] = [
            cell
            for answer in one.answers
            for cell in (answer.predicted, figure(answer.probability))
        ]
        rows.append([one.path, one.label, *cells])
    screen.table(columns, rows)
    if len(found) > _NUM_SHOWN:
        where = f"in {out}" if out and out.suffix.lower() == ".json" else "with --out FILE.json"
        screen.line(f"  and {count(len(found) - _NUM_SHOWN)} more, {where}")


def _points(difference: float, interval: tuple[float, float] | None) -> str:
    """Write a difference in points, its interval behind it where there is one."""
    from finetune.report.words import points, points_between

    behind = f"  (95 % interval {points_between(interval)})" if interval else ""
    return f"{points(difference)}{behind}"
