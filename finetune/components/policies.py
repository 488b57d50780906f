"""Freeze policies: what `train:` of a stage says. Pure functions of names, depths and kinds.

A policy sees every parameter of the network as a `ParamInfo` and answers with a `ParamRule` each.
Depths are timm's groups: coarse ones (stages of a convolutional net, blocks of a transformer) and
fine ones; the head is the parameters of `get_classifier()` and nothing else. Layer decay is not a
policy's business: `train/optim.py` multiplies it in by depth.
"""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field, field_serializer, field_validator, model_serializer

from finetune.components.component import Component, PythonObject, class_name
from finetune.components.section import Section, WholeNumber
from finetune.types import ParamInfo, ParamRule

__all__ = [
    "AllPolicy",
    "BiasPolicy",
    "BlocksPolicy",
    "FreezePolicy",
    "HeadPolicy",
    "LastBlocksPolicy",
    "LastPolicy",
    "MatchPolicy",
    "NormPolicy",
    "Policy",
    "PythonPolicy",
]


class FreezePolicy(Protocol):
    """Anything that says which parameters learn; Python users may pass their own."""

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Answer with one rule a parameter, in the same order."""
        ...


def rules_where(
    params: Sequence[ParamInfo], learns: Callable[[ParamInfo], bool]
) -> list[ParamRule]:
    """Make the rules of a policy from a predicate; biases, norms and scales are not decayed."""
    return [
        ParamRule(param.name, trainable=learns(param), decay=param.ndim > 1 and not param.is_norm)
        for param in params
    ]


class AllPolicy(Section):
    """Every parameter learns."""

    kind: Literal["all"] = "all"

    @model_serializer
    def _short(self) -> str:
        return self.kind

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let everything learn."""
        return rules_where(params, lambda param: True)


class BiasPolicy(Section):
    """Biases and the head learn (BitFit, 2106.10199)."""

    kind: Literal["bias"] = "bias"

    @model_serializer
    def _short(self) -> str:
        return self.kind

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let the head and each parameter called `bias` learn."""
        return rules_where(
            params, lambda param: param.is_head or param.name.rpartition(".")[2] == "bias"
        )


class BlocksPolicy(Section):
    """The named coarse blocks and the head learn: numbers from the input, or `stem`."""

    blocks: tuple[Annotated[WholeNumber, Field(ge=0)] | Literal["stem"], ...] = Field(
        min_length=1, description="Numbers of coarse groups, 0 at the input; `stem` is 0."
    )

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let the blocks named and the head learn."""
        wanted = {0 if block == "stem" else block for block in self.blocks}
        return rules_where(params, lambda param: param.is_head or param.depth in wanted)


class HeadPolicy(Section):
    """Only the head learns."""

    kind: Literal["head"] = "head"

    @model_serializer
    def _short(self) -> str:
        return self.kind

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let the classifier's parameters learn."""
        return rules_where(params, lambda param: param.is_head)


class LastPolicy(Section):
    """The last n coarse groups and the head learn; the head is not counted."""

    last: WholeNumber = Field(ge=1, description="Coarse groups from the end.")

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let the last `last` distinct depths outside the head learn, and the head."""
        depths = sorted({param.depth for param in params if not param.is_head})
        wanted = set(depths[-self.last :])
        return rules_where(params, lambda param: param.is_head or param.depth in wanted)


class LastBlocksPolicy(Section):
    """The last n fine groups and the head learn; the head is not counted."""

    last_blocks: WholeNumber = Field(ge=1, description="Fine groups from the end.")

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let the last `last_blocks` distinct fine groups outside the head learn, and the head."""
        blocks = sorted({param.block for param in params if not param.is_head})
        wanted = set(blocks[-self.last_blocks :])
        return rules_where(params, lambda param: param.is_head or param.block in wanted)


class MatchPolicy(Section):
    """The head and the parameters whose name a regular expression finds learn."""

    match: str = Field(description="A regular expression, searched in the dotted name.")

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let the head and each name that the expression finds learn."""
        pattern = re.compile(self.match)
        return rules_where(
            params, lambda param: param.is_head or pattern.search(param.name) is not None
        )


class NormPolicy(Section):
    """Normalisation layers and the head learn (2003.00152)."""

    kind: Literal["norm"] = "norm"

    @model_serializer
    def _short(self) -> str:
        return self.kind

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let the head and each parameter of a normalisation layer learn."""
        return rules_where(params, lambda param: param.is_head or param.is_norm)


class PythonPolicy(Section):
    """A policy given from Python, never from a file: any object with the verb `rules`."""

    kind: Literal["python"] = "python"
    given: Annotated[FreezePolicy, PythonObject("a freeze policy", verb="rules", place="train")]

    @field_serializer("given", when_used="json")
    def _name(self, value: object) -> str:
        return class_name(value)

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Ask the object."""
        return self.given.rules(params)


Policy = Annotated[
    AllPolicy
    | BiasPolicy
    | BlocksPolicy
    | HeadPolicy
    | LastBlocksPolicy
    | LastPolicy
    | MatchPolicy
    | NormPolicy
    | PythonPolicy,
    Component(holds="given"),
]
