"""`finetune run`: from a folder of photos to a tested, saved model."""

from __future__ import annotations

import sys
from dataclasses import asdict
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finetune.cli.border import Interrupted, UsageError
from finetune.cli.options import Data, Debug, Json, at_home, complete_backbone, complete_recipe
from finetune.runtime.shell import quote

if TYPE_CHECKING:
    from finetune.cli.display import RunDisplay
    from finetune.cli.render import Screen
    from finetune.pipeline import Run
    from finetune.recipe.schema import Recipe

__all__ = ["interruption", "run"]


_DEFAULT = "default"  # recipe
_Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="NAME",
        help="A timm name, name.tag, hf-hub:USER/MODEL or local-dir:FOLDER.",
        autocompletion=complete_backbone,
    ),
]
_RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME|FILE",
        help="What to do; finetune recipes ls lists them.",
        autocompletion=complete_recipe,
    ),
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="RUN",
        help="The run folder; else a new one in runs/.",
        callback=at_home,
    ),
]
_Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Weights instead of the backbone's own."),
]
_NoPretrained = Annotated[bool, typer.Option("--no-pretrained", help="Start from random weights.")]
_Device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps."),
]
_Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", help="All randomness follows from it.")
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Change a value of the recipe, such as stages.0.epochs=3; may be repeated.",
    ),
]
_Exclude = Annotated[
    str | None,
    typer.Option("--exclude", metavar="FILE", help="A fix list of finetune check, as edited."),
]
_Split = Annotated[
    str | None,
    typer.Option("--split", metavar="FILE", help="The split.csv of an earlier run, to use again."),
]
_Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the run in --out that was interrupted."),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in --out.")]
_DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Show what would be done and how long it takes; no files."),
]
_Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show errors and the end only, warnings with it.")
]


def run(
    data: Data = None,
    backbone: _Backbone = None,
    recipe: _RecipeName = _DEFAULT,
    out: _Out = None,
    weights: _Weights = None,
    no_pretrained: _NoPretrained = False,
    device: _Device = None,
    seed: _Seed = None,
    settings: _Settings = None,
    exclude: _Exclude = None,
    split: _Split = None,
    resume: _Resume = False,
    overwrite: _Overwrite = False,
    dry_run: _DryRun = False,
    quiet: _Quiet = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune a backbone on photos, test it and save it: the whole way in one command.

    Example: finetune run --data photos/ --backbone efficientnet_b0
    """
    from finetune.cli.display import RunDisplay
    from finetune.cli.render import Screen
    from finetune.recipe.load import load_recipe
    from finetune.recipe.merge import with_arguments

    if weights is not None and no_pretrained:
        raise _excluding("--weights", "--no-pretrained")
    if resume:
        _require_resumable(out, overwrite=overwrite)
    if resume and out and not dry_run and _is_over(out, json=json):
        return
    chosen = with_arguments(
        load_recipe(_source(recipe, data, out if resume else None), overrides=settings or ()),
        backbone=backbone,
        weights=weights,
        pretrained=False if no_pretrained else None,
        data=data,
        exclude=exclude,
        split=split,
        device=device,
        seed=seed,
    )
    if chosen.data.path is None:
        raise UsageError("no photos are named", hint="finetune run --data DIR")
    display = RunDisplay(Screen(sys.stderr), is_quiet=quiet)
    if dry_run:
        _show_plan(chosen, display, json=json)
        display.finish()
        return
    display.announce(chosen)
    finished = _run(chosen, display, out=out, overwrite=overwrite, resume=resume)
    display.finish()
    if json:
        _print_metrics(finished.folder)
    else:
        _show_end(finished, Screen(sys.stdout))


def _excluding(one: str, other: str) -> UsageError:
    """Refuse two flags that exclude each other."""
    return UsageError(f"{one} and {other} exclude each other", hint="leave one of them out")


def _require_resumable(out: Path | None, *, overwrite: bool) -> None:
    """Refuse flags that leave nothing to resume."""
    if overwrite:
        raise _excluding("--resume", "--overwrite")
    if out is None:
        raise UsageError("--resume needs a run folder", hint="finetune run --resume --out RUN")


def _source(recipe: str, data: str | None, resumed: Path | None) -> str | Path:
    """Name the recipe: that of the run that is resumed, where neither it nor photos are named."""
    own = resumed / "recipe.yaml" if resumed else None
    if own is None or recipe != _DEFAULT or data is not None or not own.is_file():
        return recipe
    return own


def _is_over(run: Path, *, json: bool) -> bool:
    """Tell whether there is nothing to resume, say so on stderr, and give its figures."""
    from finetune.cli.render import Screen
    from finetune.resume import is_finished

    if not is_finished(run):
        return False
    Screen(sys.stderr).line(f"{run} is finished: there is nothing to resume")
    if json:
        _print_metrics(run)
    return True


def _print_metrics(run: Path) -> None:
    """Write `metrics.json` of a run on stdout."""
    from finetune.cli.render import print_json

    print_json(loads((run / "metrics.json").read_text(encoding="utf-8")))


def _run(
    recipe: Recipe, display: RunDisplay, *, out: Path | None, overwrite: bool, resume: bool
) -> Run:
    """Run the pipeline; an interruption says what the folder holds."""
    from finetune.pipeline import run as run_pipeline

    try:
        return run_pipeline(recipe, out=out, overwrite=overwrite, resume=resume, on_event=display)
    except KeyboardInterrupt:
        resumed = str(out) if resume and out is not None and out.is_dir() else None
        raise interruption(display.run or resumed) from None
    finally:
        display.screen.end_progress()


def interruption(run: str | None) -> Interrupted:
    """Say what an interrupted run leaves behind.

    Args:
        run: Path of its folder; None where it had none yet.
    """
    from finetune.resume import is_finished
    from finetune.runtime.folder import RunFolder

    if run is None:
        return Interrupted("interrupted before anything was written")
    folder = RunFolder(Path(run))
    if is_finished(folder.path):
        if "report.html" in folder.contents():
            return Interrupted(f"interrupted: {run} is complete")
        return Interrupted(
            f"interrupted: {run} is complete, but for its page",
            hint=f"finetune report {quote(run)}",
        )
    if any(folder.checkpoints.glob("[0-9]*")):
        return Interrupted(
            f"interrupted: {run} can go on", hint=f"finetune run --resume --out {quote(run)}"
        )
    held = ", ".join(folder.contents()) or "nothing"
    model = "a complete model" if folder.model.is_dir() else "no model yet"
    return Interrupted(
        f"interrupted: {run} holds {held}: {model}",
        hint=f"start it again with --out {quote(run)} --overwrite",
    )


def _show_plan(recipe: Recipe, display: RunDisplay, *, json: bool) -> None:
    """Write on stdout what a run would do: data, recipe, what learns in each stage, the time."""
    from finetune.cli.display import show_audit, show_data, show_estimate
    from finetune.cli.render import Screen, print_json
    from finetune.plan import plan
    from finetune.recipe.load import dump_recipe
    from finetune.train.events import DataFound, Event, Progressed, Warned
    from finetune.train.preview import preview_stages

    def show_progress(event: Event) -> None:
        if isinstance(event, Progressed | Warned):
            display(event)

    try:
        found = plan(recipe, on_event=show_progress)
    finally:
        display.screen.end_progress()
    data = DataFound.from_index(found.index)
    stages = preview_stages(found.model.network, found.recipe)
    if json:
        print_json(
            {
                "recipe": found.recipe.model_dump(mode="json"),
                "reasons": found.recipe.reasons,
                "data": asdict(data),
                "stages": [asdict(stage) for stage in stages],
                "estimate_seconds": found.estimate_seconds,
            }
        )
        return
    screen = Screen(sys.stdout)
    show_data(screen, data)
    screen.line()
    screen.line(dump_recipe(found.recipe).rstrip())
    for stage in stages:
        show_audit(screen, stage)
    show_estimate(screen, found.estimate_seconds)


def _show_end(run: Run, screen: Screen) -> None:
    """Write the figures of a finished run, where everything is, and what to do next."""
    from finetune.cli.display import show_result
    from finetune.cli.render import duration
    from finetune.report.report import REPORT_NAME

    screen.line()
    last = list(run.results)[-1:]
    for split, result in run.results.items():
        role = " (used for selection: no test)" if split == "val" else ""
        table = str(run.folder / "per_class.csv")
        show_result(screen, result, role=role, table=table, by_class=split in last)
    folder = quote(str(run.folder))
    screen.line()
    screen.line(f"finished in {duration(run.seconds)}")
    screen.line(f"run:   {run.folder}")
    screen.line(f"model: {run.folder / 'model'}")
    if (run.folder / REPORT_NAME).is_file():
        screen.line(f"page:  {run.folder / REPORT_NAME}")
    screen.line(f"next:  finetune predict {folder} photo.jpg", style="bold")
