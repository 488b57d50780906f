"""What each stage would train, found out without training: for `--dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.model.depth import describe_parameters
from finetune.train.events import StageStarted
from finetune.train.freeze import audit, freeze, set_modes
from finetune.train.optim import learning_rates

if TYPE_CHECKING:
    from finetune.model.network import Network
    from finetune.recipe.schema import ResolvedRecipe

__all__ = ["preview_stages"]


def preview_stages(network: Network, recipe: ResolvedRecipe) -> tuple[StageStarted, ...]:
    """Give what each stage would announce: its length, and what learns in each depth.

    Args:
        network: Pretrained, with its new head; its `requires_grad` and modes change.
        recipe: What would be done.

    Raises:
        RecipeError: A stage would train nothing.
    """
    params = describe_parameters(network)
    previews = []
    for index, stage in enumerate(recipe.stages):
        place = f"stages.{index}.train"
        freezing = freeze(
            network, params, policy=stage.train, batch_norm=stage.batch_norm, place=place
        )
        rates = learning_rates(freezing, lr=stage.lr, layer_decay=stage.layer_decay)
        set_modes(network, stage.batch_norm)
        rows = audit(network, freezing, {} if stage.solver == "probe" else rates)
        previews.append(StageStarted(stage.name, stage.solver, stage.epochs, rows))
    return tuple(previews)
