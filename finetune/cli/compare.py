"""`finetune compare`: whether one run is better than another, on the same images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.border import UsageError
from finetune.cli.options import Debug, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finetune.cli.render import Screen
    from finetune.evaluate.answers import Cost
    from finetune.evaluate.comparison import ClassDifference, Comparison, Difference

__all__ = ["compare"]

_NUM_SHOWN = 10  # images and classes that are spelt out; --out and --json have all


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Run folders; the first is the reference."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.json", help="Write all that was compared."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare finished runs on the same images: which is better, by how much, at what cost.

    Example: finetune compare runs/photos-resnet18-001 runs/photos-efficientnet_b0-001
    """
    _check_runs(runs)
    if out is not None and out.suffix.lower() != ".json":
        raise UsageError(f"--out {out} must end in .json", hint=f"--out {out.with_suffix('.json')}")
    from finetune.cli.render import Screen, print_json
    from finetune.evaluate.comparison import compare_runs
    from finetune.report.comparison import comparison_document, write_comparison
    from finetune.report.runs import read_runs, shared_split

    found = read_runs(runs)
    split = shared_split(found)
    comparison = compare_runs([run.answers(split) for run in found])
    document = comparison_document(comparison)
    if out is not None:
        from finetune.runtime.files import make_folder

        make_folder(out.parent)
        write_comparison(document, out)
        Screen(sys.stderr).line(f"comparison written to {out}")
    if json:
        print_json(document)
    else:
        _show(comparison, Screen(sys.stdout), out)


def _check_runs(runs: list[str]) -> None:
    """Refuse fewer than two runs, and one named twice."""
    if len(runs) < 2:
        raise UsageError("compare needs two runs or more", hint="finetune compare RUN RUN")
    places = [Path(run).expanduser().resolve() for run in runs]
    twice = [run for run, place in zip(runs, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UsageError(f"{twice[0]} is named twice", hint="name each run once")


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

    name = Column("run", "left", is_shortened=True)
    figures = [name, Column("accuracy"), Column("95 %", "left"), Column("macro F1")]
    rows = []
    for run in comparison.runs:
        low, high = run.accuracy_interval
        interval = f"{low:.3f} to {high:.3f}"
        rows.append([run.name, figure(run.accuracy), interval, figure(run.macro_f1)])
    screen.table(figures, rows)
    screen.line()
    costs = ("training", "total", "parameters", "memory", "images/s", "model")
    columns = [name, *(Column(title) for title in costs)]
    screen.table(columns, [[run.name, *_cost_cells(run.cost)] for run in comparison.runs])


def _cost_cells(cost: Cost) -> list[str]:
    """Write what a run cost; a dash where its files do not say."""
    from finetune.cli.render import duration, short_count
    from finetune.runtime.space import size_words

    memory = cost.peak_memory_mib
    return [
        "-" if cost.training_seconds is None else duration(cost.training_seconds),
        "-" if cost.total_seconds is None else duration(cost.total_seconds),
        "-" if cost.num_parameters is None else short_count(cost.num_parameters),
        "-" if memory is None else size_words(memory << 20),
        "-" if cost.images_per_second is None else f"{cost.images_per_second:.0f}",
        "-" if cost.model_bytes is None else size_words(cost.model_bytes),
    ]


def _show_difference(one: Difference, screen: Screen) -> None:
    """Write how one run differs from the reference, and in which classes most."""
    from finetune.cli.render import Column, count
    from finetune.evaluate.comparison import p_value_words

    screen.line()
    screen.line(f"{one.run} less {one.reference}, in points", style="bold")
    screen.line(f"  accuracy  {_points(one.accuracy)}{_between(one.accuracy_interval)}")
    screen.line(f"  macro F1  {_points(one.macro_f1)}{_between(one.macro_f1_interval)}")
    screen.line(
        f"  right alone on {count(one.num_only_run)} and {count(one.num_only_reference)} images: "
        f"{p_value_words(one.p_value)} by McNemar's exact test"
    )
    differing = [row for row in one.per_class if row.recall != row.reference_recall]
    if not differing:
        return
    differing.sort(key=lambda row: (row.corrected_p_value, -abs(row.difference), row.name))
    columns = [Column("class", "left", is_shortened=True), Column("recall"), Column("reference")]
    columns += [Column("points"), Column("95 %", "left"), Column("p, corrected"), Column("images")]
    screen.table(columns, [_class_row(row) for row in differing[:_NUM_SHOWN]])
    if len(differing) > _NUM_SHOWN:
        screen.line(f"  and {count(len(differing) - _NUM_SHOWN)} more classes")


def _class_row(row: ClassDifference) -> list[str]:
    """Write how two runs differ in one class."""
    from finetune.cli.render import count, figure

    low, high = row.interval
    return [
        row.name,
        figure(row.recall),
        figure(row.reference_recall),
        _points(row.difference),
        f"{100 * low:.1f} to {100 * high:.1f}",
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
        where = f"in {out}" if out else "with --out FILE.json"
        screen.line(f"  and {count(len(found) - _NUM_SHOWN)} more, {where}")


def _points(value: float) -> str:
    """Write a difference of shares in points, with its sign."""
    return f"{100 * value:+.1f}"


def _between(interval: tuple[float, float] | None) -> str:
    """Write an interval of a difference behind it, in points."""
    if interval is None:
        return ""
    return f"  (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
