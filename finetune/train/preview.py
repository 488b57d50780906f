"""What a stage trains, found out and put in a table before it trains: at a run and at a dry run.

Adapters stand in the network for the length of their stage alone: a stage is a `with` block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from finetune.components.policies import lora_of
from finetune.model.adapters import adapted
from finetune.model.depth import describe_parameters
from finetune.runtime.seeds import derive_seed
from finetune.train.events import StageStarted
from finetune.train.freeze import Freezing, audit, freeze, set_modes
from finetune.train.optim import learning_rates

if TYPE_CHECKING:
    from finetune.model.network import Network
    from finetune.recipe.schema import Recipe, ResolvedRecipe

__all__ = ["begin_stage", "preview_stages", "require_adapters"]


@contextmanager
def begin_stage(
    network: Network, recipe: ResolvedRecipe, *, stage_index: int
) -> Iterator[tuple[Freezing, StageStarted]]:
    """Freeze a network as a stage says, for a `with` block; tabulate what will learn.

    Args:
        network: Its `requires_grad` and modes are set; within the block it has the stage's
            adapters, if any.
        recipe: The recipe of the run.
        stage_index: 0-based position of the stage.

    Raises:
        RecipeError: The stage would train nothing, or has no layer to adapt.
    """
    stage = recipe.stages[stage_index]
    place = f"stages.{stage_index}.train"
    with _adapters(network, recipe, stage_index):
        params = describe_parameters(network)
        mode = stage.batch_norm
        freezing = freeze(network, params, policy=stage.train, batch_norm=mode, place=place)
        set_modes(network, mode)
        is_probe = stage.solver == "probe"
        rates = learning_rates(freezing, lr=stage.lr, layer_decay=stage.layer_decay)
        rows = audit(network, freezing, {} if is_probe else rates)
        yield freezing, StageStarted(stage.name, stage.solver, stage.epochs, rows)


def preview_stages(network: Network, recipe: ResolvedRecipe) -> tuple[StageStarted, ...]:
    """Give what each stage would announce: its length, and what learns in each depth.

    Raises:
        RecipeError: A stage would train nothing, or has no layer to adapt.
    """
    stages = []
    for index in range(len(recipe.stages)):
        with begin_stage(network, recipe, stage_index=index) as (_, announcement):
            stages.append(announcement)
    return tuple(stages)


def require_adapters(network: Network, recipe: Recipe) -> None:
    """Put the adapters of every stage on and take them off, before minutes of work need them.

    Raises:
        MissingExtraError: The library that makes them cannot be imported.
        RecipeError: A stage has no layer to adapt.
    """
    for index in range(len(recipe.stages)):
        with _adapters(network, recipe, index):
            pass


def _adapters(network: Network, recipe: Recipe, stage_index: int) -> AbstractContextManager[None]:
    """Put a stage's adapters in place, what is random in them from the seed; nothing without."""
    settings = lora_of(recipe.stages[stage_index].train)
    if settings is None:
        return nullcontext()
    seed = derive_seed(recipe.seed, "lora", stage_index)
    return adapted(network, settings, seed=seed, place=f"stages.{stage_index}.train")
