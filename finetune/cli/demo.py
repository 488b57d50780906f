"""`finetune demo`: the embedded example, from photos to figures, without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.options import Debug, Json, at_home
from finetune.runtime.shell import quote

if TYPE_CHECKING:
    from finetune.cli.render import Screen
    from finetune.demo.example import DemoResult
    from finetune.pipeline import Run

__all__ = ["demo"]

_NETWORKS = {"tuned": "fine-tuned from the starter", "scratch": "the same from scratch"}


def demo(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Where photos and runs are written.", callback=at_home),
    ] = Path("demo-data"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune the starter network on handwritten digits; no photos and no network needed.

    The same network is trained from scratch beside it, and the figures of both are shown. DIR
    receives the photos and a run folder for each; an earlier example there is replaced.
    """
    from finetune.cli.render import Screen, print_json

    result = _run(folder, Screen(sys.stderr))
    if json:
        print_json(_as_json(result))
    else:
        _show(result, Screen(sys.stdout))


def _run(folder: Path, screen: Screen) -> DemoResult:
    """Run the example, drawing both runs briefly."""
    from finetune.cli.display import RunDisplay
    from finetune.cli.run import interruption
    from finetune.demo.example import run_demo

    display = RunDisplay(screen, is_brief=True)

    def announce(words: str) -> None:
        screen.end_progress()
        screen.line()
        screen.line(words, style="bold")

    screen.line("writing handwritten digits as photos")
    try:
        return run_demo(folder, on_event=display, on_run=announce)
    except KeyboardInterrupt:
        raise interruption(display.run) from None
    finally:
        screen.end_progress()


def _show(result: DemoResult, screen: Screen) -> None:
    """Write the figures of both networks on the same test images, and where everything is."""
    from finetune.cli.render import Column, duration, figure
    from finetune.report.report import REPORT_NAME

    test = result.tuned.results["test"]
    screen.line()
    screen.line(
        f"{test.figures.num_samples} test images of digits that the starter never saw",
        style="bold",
    )
    columns = (
        Column("network", "left", is_shortened=True),
        Column("accuracy"),
        Column("95 %", "left"),
        Column("macro F1"),
        Column("time"),
    )
    rows = []
    for name, run in _runs(result).items():
        figures = run.results["test"].figures
        low, high = figures.accuracy_interval
        rows.append(
            (
                _NETWORKS[name],
                figure(figures.accuracy),
                f"{low:.3f} to {high:.3f}",
                figure(figures.macro_f1),
                duration(run.seconds),
            )
        )
    screen.table(columns, rows)
    folder = result.tuned.folder
    screen.line()
    screen.line(f"photos: {result.data}")
    screen.line(f"model:  {folder / 'model'}")
    if (folder / REPORT_NAME).is_file():
        screen.line(f"page:   {folder / REPORT_NAME}")
    screen.line(f"tables: {folder / 'metrics.json'}, per_class.csv, predictions.csv beside it")
    screen.line(f"other:  {result.scratch.folder}")
    photos = result.data / "test" / test.classes[0]
    screen.line(f"next:   finetune predict {quote(str(folder))} {quote(str(photos))}", style="bold")


def _as_json(result: DemoResult) -> dict[str, Any]:
    """Give the photos, and of each run its folder, seconds and test figures."""
    return {
        "data": str(result.data),
        "runs": {
            name: {
                "run": str(run.folder),
                "model": str(run.folder / "model"),
                "seconds": run.seconds,
                "accuracy": run.results["test"].figures.accuracy,
                "accuracy_interval": list(run.results["test"].figures.accuracy_interval),
                "macro_f1": run.results["test"].figures.macro_f1,
                "num_samples": run.results["test"].figures.num_samples,
            }
            for name, run in _runs(result).items()
        },
    }


def _runs(result: DemoResult) -> dict[str, Run]:
    """The two runs by name, the better founded first."""
    return {"tuned": result.tuned, "scratch": result.scratch}
