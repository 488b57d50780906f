"""The story of the library: recipe → data → model → stages → evaluation → report.

One straight line of plain calls. Variety lives in the components of the recipe; what happens is
told through one callback. Published figures come from the saved model, by the code of `predict`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.leaks import count_leaks
from finetune.data.prepare import fingerprint
from finetune.data.split import write_split
from finetune.evaluate.parts import Evaluated, evaluate_parts
from finetune.model.bundle import Bundle, load_bundle, save_bundle
from finetune.plan import Plan, plan
from finetune.recipe.load import dump_recipe
from finetune.report.log import RunLog
from finetune.report.report import try_report
from finetune.report.tables import MetricsHeader, ProbeFigures, write_tables
from finetune.report.tracking import tracked
from finetune.resume import find_interrupted
from finetune.runtime.allocator import freed_memory_kept
from finetune.runtime.device import describe_environment, peak_memory_mib
from finetune.runtime.folder import RunFolder, check_free, claim, claim_next
from finetune.runtime.space import GIB
from finetune.train.checkpoint import Checkpoints
from finetune.train.events import OnEvent, RunEnded, RunStarted, Warned
from finetune.train.inputs import make_inputs
from finetune.train.stages import TrainResult, run_stages

if TYPE_CHECKING:
    from finetune.evaluate.result import EvalResult
    from finetune.recipe.schema import Recipe, ResolvedRecipe
    from finetune.types import Index

__all__ = ["Run", "run"]


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run.

    Attributes:
        folder: The run folder.
        recipe: What was done.
        bundle: The saved model.
        results: Figures by split, `val` before `test`.
        index: The samples, with their splits and what was left out.
        seconds: Of the whole run, what it took before an interruption included.
    """

    folder: Path
    recipe: ResolvedRecipe
    bundle: Bundle
    results: Mapping[str, EvalResult]
    index: Index
    seconds: float


@freed_memory_kept()
def run(
    recipe: Recipe,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_event: OnEvent | None = None,
    index: Index | None = None,
) -> Run:
    """Train, test and save a model as a recipe says.

    Args:
        recipe: What to do; `data.path` names the data unless `index` is given.
        out: The run folder; `runs/<data>-<backbone>-<NNN>` where None.
        overwrite: Replace an earlier run in `out`.
        resume: Go on with the run in `out` from its newest checkpoint; without one, begin afresh.
        on_event: Receives everything that happens.
        index: Samples that are indexed already.

    Raises:
        FinetuneError: One of its branches, each with its hint; see `finetune.errors`.
    """
    started = time.perf_counter()
    tell = RunLog(on_event)
    if out is not None:
        check_free(out, overwrite=overwrite or resume, beside=resume)
    earlier = find_interrupted(out) if out and resume else None
    if earlier is not None:
        recipe = earlier.complete(recipe)
    elif resume:
        tell(Warned(f"{out} holds no checkpoint that is whole: the run begins afresh"))
    planned = plan(recipe, on_event=tell, index=index, imports_ahead=True)
    resolved = planned.recipe
    if earlier is not None:
        folder = earlier.take_up(planned)
    elif out is not None:
        folder = claim(out, overwrite=overwrite or resume, beside=resume)
    else:
        folder = claim_next(resolved.data.path, resolved.model.backbone)
    tell.open(folder)
    with tracked(resolved, folder.path, tell=tell) as tell_all:
        tell_all(RunStarted(str(folder.path), resolved.model.backbone, resolved.data.path))
        if earlier is None:
            _write_beginning(folder, planned)
        checkpoints = _checkpoints(folder, resolved, tell_all)
        trained = _train(planned, checkpoints, tell_all)
        bundle, index = _save(folder, planned, tell_all), planned.index
        evaluated = evaluate_parts(bundle, index, resolved, kept=planned.kept, on_event=tell_all)
        seconds = trained.earlier_seconds + time.perf_counter() - started
        header = _header(folder, planned, trained, evaluated, seconds)
        write_tables(evaluated.results, folder.path, header=header)
        checkpoints.remove()
        try_report(folder.path, evaluated.bundle, warn=lambda message: tell_all(Warned(message)))
        tell_all(RunEnded(str(folder.path), str(folder.model), trained.chosen.origin, seconds))
    return Run(folder.path, resolved, evaluated.bundle, evaluated.results, index, seconds)


def _write_beginning(folder: RunFolder, planned: Plan) -> None:
    """Write what is known before training: recipe, split, environment."""
    recipe, index = planned.recipe, planned.index
    folder.write_text("recipe.yaml", dump_recipe(recipe))
    write_split(index, folder.path / "split.csv")
    environment = describe_environment(planned.machine, seed=recipe.seed)
    choices = {"precision": recipe.runtime.precision, "reasons": recipe.reasons}
    data = {"data_fingerprint": fingerprint(index)}
    folder.write_json("environment.json", {**environment, **choices, **data})


def _checkpoints(folder: RunFolder, recipe: ResolvedRecipe, tell: OnEvent) -> Checkpoints:
    """Set up where the state of training is kept."""
    return Checkpoints(
        folder.checkpoints,
        share=recipe.runtime.checkpoint_share,
        budget_bytes=int(recipe.runtime.checkpoint_gib * GIB),
        warn=lambda message: tell(Warned(message)),
    )


def _train(planned: Plan, checkpoints: Checkpoints, tell: OnEvent) -> TrainResult:
    """Run the stages; the network then holds the best weights."""
    model = planned.model
    inputs = make_inputs(
        planned.recipe,
        planned.index,
        preprocessing=model.preprocessing,
        train_spec=model.train_spec,
        kept=planned.kept,
    )
    return run_stages(
        model.network,
        planned.recipe,
        inputs,
        preprocessing=model.preprocessing,
        on_event=tell,
        checkpoints=checkpoints,
    )


def _save(folder: RunFolder, planned: Plan, tell: OnEvent) -> Bundle:
    """Save the model, and load it again: what is tested is what was saved."""
    recipe, model = planned.recipe, planned.model
    document = {
        "backbone": recipe.model.backbone,
        "data_fingerprint": fingerprint(planned.index),
        "versions": describe_environment(planned.machine, seed=recipe.seed)["versions"],
        "recipe": recipe.model_dump(mode="json"),
    }
    bundle = Bundle(model.network, planned.index.classes, model.preprocessing, document)
    save_bundle(bundle, folder.model, head=recipe.model.head)
    saved = load_bundle(folder.model, head=recipe.model.head)
    if reason := saved.document["timm_not_loadable_reason"]:
        tell(Warned(f"timm alone cannot load the saved model, finetune can: {reason}"))
    return saved


def _header(
    folder: RunFolder, planned: Plan, trained: TrainResult, evaluated: Evaluated, seconds: float
) -> MetricsHeader:
    """Gather what `metrics.json` says beside the figures."""
    return MetricsHeader(
        run=folder.path.name,
        backbone=planned.recipe.model.backbone,
        classes=planned.index.classes,
        selected_by=planned.recipe.evaluate.select_by,
        total_seconds=seconds,
        data_seconds=planned.data_seconds,
        stage_seconds=trained.stage_seconds,
        peak_memory_mib=peak_memory_mib(),
        num_parameters=sum(values.numel() for values in planned.model.network.parameters()),
        probe=trained.probe and ProbeFigures(*trained.probe),
        leaks={split: count_leaks(planned.index, split) for split in ("val", "test")},
        calibration=evaluated.bundle.calibration,
        prediction=evaluated.speed,
    )
