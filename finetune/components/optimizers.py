"""The optimiser of a stage: any that timm knows, by its name."""

import inspect
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from finetune.components.component import Forms
from finetune.components.problems import did_you_mean
from finetune.components.section import Number, Section
from finetune.errors import Problem, RecipeError
from finetune.torchvision_ops import register_missing_ops

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer

__all__ = ["Optimizer", "OptimizerSection"]

# What an optimiser takes and a stage gives: groups of parameters, rate, decay, and the momentum.
_NOT_OPTIONS = ("params", "lr", "weight_decay", "momentum")
# What optimisers were seen to raise for values that they do not take.
_FAILURES = (
    *(ArithmeticError, AssertionError, ImportError, LookupError, RuntimeError),
    *(TypeError, ValueError),
)


class OptimizerSection(Section):
    """An optimiser by timm's name, with its further options."""

    name: str = Field("adamw", description="sgd, adam, adamw, rmsprop, or any other of timm's.")
    momentum: Number = Field(0.9, ge=0, lt=1, description="For those that have a momentum.")
    options: dict[str, float | int | bool | str | list[float]] = Field(
        {}, description="Further arguments, passed on by name."
    )

    def check(self) -> None:
        """Find an unknown name, and options that the optimiser does not take or like.

        Raises:
            RecipeError: By path (`stages.optimizer`), with the nearest name.
        """
        import torch

        parameter = torch.nn.Parameter(torch.zeros(1))
        self.build([{"params": [parameter]}], lr=1.0, weight_decay=0.0)

    def check_name(self) -> None:
        """Raise a RecipeError with the nearest name where timm does not know this one."""
        register_missing_ops()
        from timm.optim import list_optimizers

        known = list_optimizers()
        if self.name.lower() not in known:
            message = f"there is no optimiser {self.name!r}"
            hint = did_you_mean(self.name.lower(), known)
            raise RecipeError(
                [Problem("stages.optimizer", message, hint=hint)],
                hint="python -c 'import timm.optim; print(timm.optim.list_optimizers())'",
            )

    def build(
        self, groups: list[dict[str, Any]], *, lr: float, weight_decay: float
    ) -> "TorchOptimizer":
        """Build the optimiser over parameter groups whose own `lr` and `weight_decay` stand.

        Raises:
            RecipeError: timm has no such optimiser, or it does not take one of the options.
        """
        self.check_name()
        register_missing_ops()
        from timm.optim import create_optimizer_v2

        self._check_options()
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
        except _FAILURES as error:
            message = f"{self.name} cannot be made: {error}"
            raise RecipeError([Problem("stages.optimizer.options", message)]) from error
        return optimizer

    def _check_options(self) -> None:
        """Raise a RecipeError for options that the optimiser does not have: timm drops some."""
        register_missing_ops()
        from timm.optim import get_optimizer_class

        taken = inspect.signature(get_optimizer_class(self.name, bind_defaults=False)).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            return
        known = [name for name in taken if name not in _NOT_OPTIONS]
        problems = [
            Problem(
                f"stages.optimizer.options.{name}",
                f"{self.name} has no option {name!r}; it takes {', '.join(known)}",
                hint=did_you_mean(name, known),
            )
            for name in self.options
            if name not in known
        ]
        if problems:
            raise RecipeError(problems)


def _from_name(value: Any) -> Any:
    """Read the short form: `adamw` stands for `{name: adamw}`."""
    return {"name": value} if isinstance(value, str) else value


Optimizer = Annotated[
    OptimizerSection,
    BeforeValidator(_from_name, json_schema_input_type=Annotated[Any, Forms((OptimizerSection,))]),
]
