"""The optimiser of a stage: any that timm knows, by its name."""

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from finetune.components.section import Number, Section
from finetune.errors import Problem, RecipeError, nearest

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer

__all__ = ["Optimizer"]


class OptimizerSection(Section):
    """An optimiser by timm's name, with its further options."""

    name: str = Field("adamw", description="sgd, adam, adamw, rmsprop, or any other of timm's.")
    momentum: Number = Field(0.9, ge=0, lt=1, description="For those that have a momentum.")
    options: dict[str, float | int | bool | str | list[float]] = Field(
        {}, description="Further arguments, passed on by name."
    )

    def check_name(self) -> None:
        """Raise a RecipeError with the nearest name where timm does not know this one."""
        from finetune.torchvision_ops import register_missing_ops

        register_missing_ops()
        from timm.optim import list_optimizers

        known = list_optimizers()
        if self.name.lower() not in known:
            near = nearest(self.name.lower(), known)
            raise RecipeError(
                [
                    Problem(
                        "stages.optimizer",
                        f"there is no optimiser {self.name!r}",
                        hint=near and f"did you mean {near}?",
                    )
                ],
                hint="python -c 'import timm.optim; print(timm.optim.list_optimizers())'",
            )

    def build(
        self, groups: list[dict[str, Any]], *, lr: float, weight_decay: float
    ) -> "TorchOptimizer":
        """Build the optimiser over parameter groups whose own `lr` and `weight_decay` stand.

        Raises:
            RecipeError: timm has no such optimiser, or it does not take one of the options.
        """
        from finetune.torchvision_ops import register_missing_ops

        self.check_name()
        register_missing_ops()
        from timm.optim import create_optimizer_v2

        try:
            optimizer: TorchOptimizer = create_optimizer_v2(
                groups,
                opt=self.name,
                lr=lr,
                weight_decay=weight_decay,
                momentum=self.momentum,
                filter_bias_and_bn=False,
                **self.options,
            )
        except TypeError as error:
            raise RecipeError(
                [Problem("stages.optimizer.options", f"{self.name} refuses its options: {error}")]
            ) from error
        return optimizer


def _from_name(value: Any) -> Any:
    """Read the short form: `adamw` stands for `{name: adamw}`."""
    return {"name": value} if isinstance(value, str) else value


Optimizer = Annotated[
    OptimizerSection, BeforeValidator(_from_name, json_schema_input_type=str | OptimizerSection)
]
