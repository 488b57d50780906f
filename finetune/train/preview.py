"""What a stage trains, found out and put in a table before it trains: at a run and at a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.model.depth import describe_parameters
from finetune.train.events import StageStarted
from finetune.train.freeze import Freezing, audit, freeze, set_modes
from finetune.train.optim import learning_rates

if TYPE_CHECKING:
    from finetune.model.network import Network
    from finetune.recipe.schema import ResolvedRecipe

__all__ = ["begin_stage", "preview_stages"]


def begin_stage(
    network: Network, recipe: ResolvedRecipe, *, stage_index: int
) -> tuple[Freezing, StageStarted]:
    """Freeze a network as a stage says, and tabulate what will learn.

    Args:
        network: Its `requires_grad` and modes are set.
        recipe: The recipe of the run.
        stage_index: 0-based position of the stage.

    Raises:
        RecipeError: The stage would train nothing.
    """
    stage = recipe.stages[stage_index]
    freezing = freeze(
        network,
        describe_parameters(network),
        policy=stage.train,
        batch_norm=stage.batch_norm,
        place=f"stages.{stage_index}.train",
    )
    set_modes(network, stage.batch_norm)
    is_probe = stage.solver == "probe"
    rates = learning_rates(freezing, lr=stage.lr, layer_decay=stage.layer_decay)
    rows = audit(network, freezing, {} if is_probe else rates)
    return freezing, StageStarted(stage.name, stage.solver, stage.epochs, rows)


def preview_stages(network: Network, recipe: ResolvedRecipe) -> tuple[StageStarted, ...]:
    """Give what each stage would announce: its length, and what learns in each depth.

    Raises:
        RecipeError: A stage would train nothing.
    """
    return tuple(
        begin_stage(network, recipe, stage_index=index)[1] for index in range(len(recipe.stages))
    )
