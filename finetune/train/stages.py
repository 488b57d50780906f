"""The list of stages: what a recipe's `stages:` does, one after the other.

Each stage starts from the best weights so far and ends by restoring the best of all: a stage that
falls below an earlier one is said to, and its weights are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from finetune.data.loading import killed_workers_named
from finetune.errors import Problem, RecipeError
from finetune.runtime.seeds import own_randomness
from finetune.train.best import Best, Candidate
from finetune.train.engine import make_accelerator
from finetune.train.events import EpochEnded, Resumed, StageEnded
from finetune.train.gradient import train_stage
from finetune.train.preview import begin_stage
from finetune.train.probing import fit_stage
from finetune.train.session import Session
from finetune.train.state import restore_session

if TYPE_CHECKING:
    from finetune.components.preprocess import Preprocessing
    from finetune.model.network import Network
    from finetune.recipe.schema import ResolvedRecipe, ResolvedStage
    from finetune.train.checkpoint import Checkpoints
    from finetune.train.events import OnEvent
    from finetune.train.inputs import Inputs

__all__ = ["TrainResult", "run_stages"]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What training gave; the network itself holds the best weights.

    Attributes:
        chosen: Where the best weights come from.
        history: One row an epoch, in order.
        probe: Validation accuracy of the probe, in [0, 1] or NaN, and the seconds it cost; None
            where none was fitted.
        stage_seconds: What each stage cost in all, by name.
        earlier_seconds: How much of that was before an interruption.
    """

    chosen: Candidate
    history: tuple[EpochEnded, ...]
    probe: tuple[float, float] | None
    stage_seconds: Mapping[str, float]
    earlier_seconds: float = 0.0


@killed_workers_named()
def run_stages(
    network: Network,
    recipe: ResolvedRecipe,
    inputs: Inputs,
    *,
    preprocessing: Preprocessing,
    on_event: OnEvent,
    checkpoints: Checkpoints | None = None,
) -> TrainResult:
    """Run every stage of a recipe; leave the best weights in the network, on the CPU.

    Args:
        network: Pretrained, with a new head; it is changed in place.
        recipe: What to do.
        inputs: What to read.
        preprocessing: Normalises batches on the device.
        on_event: Receives what happens.
        checkpoints: Where the state of training is kept, and whence it goes on; None for neither.

    Raises:
        RecipeError: A stage trains nothing, or the probe cannot fit this head.
        TrainingError: The loss is not finite, or memory does not suffice.
        FinetuneError: A process that decodes was killed.
    """
    accelerator = make_accelerator(recipe)
    best = Best(recipe.evaluate.select_by)
    placed = inputs.prepared(accelerator)
    session = Session(
        network, recipe, placed, preprocessing, accelerator, on_event, best, checkpoints
    )
    layout = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    with own_randomness(recipe.runtime.device):
        network.to(  # type: ignore[call-overload]
            device=accelerator.device, memory_format=layout[recipe.runtime.memory_format]
        )
        first = _take_up(session)
        earlier_seconds = sum(session.seconds.values())
        for stage_index, stage in enumerate(recipe.stages[first:], start=first):
            _run_stage(session, stage, stage_index)
        network.to("cpu").eval()
    if best.candidate is None:  # every stage has at least one epoch, and each epoch is offered
        raise RecipeError([Problem("stages", "no stage trained anything")])
    history = tuple(session.history)
    return TrainResult(best.candidate, history, session.probe, session.seconds, earlier_seconds)


def _take_up(session: Session) -> int:
    """Go on from the newest checkpoint, if any; give the stage to begin or to go on with."""
    state = None if session.checkpoints is None else session.checkpoints.newest()
    if state is None:
        return 0
    restore_session(session, state)
    session.resumed = state
    course = state["course"]
    stage_index: int = course["stage_index"]
    name = session.recipe.stages[stage_index].name
    done = course["tally"]["num_batches"]
    session.on_event(Resumed(name, course["epoch"], done, tuple(session.history)))
    return stage_index


def _run_stage(session: Session, stage: ResolvedStage, stage_index: int) -> None:
    """Freeze, announce, train or fit, restore the best, and say what came of it."""
    session.begin(stage.name)
    begun = begin_stage(session.network, session.recipe, stage_index=stage_index)
    with begun as (freezing, announcement):
        if session.resumed is not None:
            session.network.load_state_dict(session.resumed["network"])
        session.on_event(announcement)
        if stage.solver == "probe":
            note = fit_stage(session, stage)
        else:
            note = train_stage(session, stage, freezing, stage_index=stage_index)
    session.best.restore(session.network)
    session.count_seconds()
    kept = session.best.candidate
    if kept is not None and kept.stage != stage.name:
        note = f"{note}no epoch was better than stage {kept.stage}; its weights are kept"
    session.on_event(StageEnded(stage.name, session.seconds[stage.name], note.removesuffix("; ")))
