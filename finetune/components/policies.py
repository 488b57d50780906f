"""Freeze policies: what `train:` of a stage says. Pure functions of names, depths and kinds.

A policy sees every parameter of the network as a `ParamInfo` and answers with a `ParamRule` each.
Depths are timm's groups: coarse ones (stages of a convolutional net, blocks of a transformer) and
fine ones; the head is the parameters of `get_classifier()` and nothing else. Layer decay is not a
policy's business: `train/optim.py` multiplies it in by depth. The parameters of a `lora` stage are
made by `model/adapters.py` before its policy is asked.
"""

import re
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Annotated, Literal, Protocol

from pydantic import Field, field_serializer, field_validator, model_serializer

from finetune.components.component import Component, PythonObject, class_name
from finetune.components.section import Number, Section, WholeNumber
from finetune.errors import MissingExtraError
from finetune.types import ParamInfo, ParamRule

__all__ = [
    "AllPolicy",
    "BiasPolicy",
    "BlocksPolicy",
    "FreezePolicy",
    "HeadPolicy",
    "LastBlocksPolicy",
    "LastPolicy",
    "LoraPolicy",
    "LoraSettings",
    "MatchPolicy",
    "NormPolicy",
    "Policy",
    "PythonPolicy",
    "lora_of",
]

_ADAPTER = ".lora_"  # in the name of each parameter that peft adds


class FreezePolicy(Protocol):
    """Anything that says which parameters learn; Python users may pass their own."""

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Answer with one rule a parameter, in the same order."""
        ...


def rules_where(
    params: Sequence[ParamInfo], learns: Callable[[ParamInfo], bool]
) -> list[ParamRule]:
    """Make the rules of a policy from a predicate.

    Biases, norms, scales and what an architecture names beside them are not decayed.
    """
    return [
        ParamRule(param.name, trainable=learns(param), decay=_is_decayed(param)) for param in params
    ]


def _is_decayed(param: ParamInfo) -> bool:
    """Whether weight decay applies where nothing else is said."""
    return param.ndim > 1 and not param.is_norm and not param.is_undecayed


def _compiling(value: str) -> str:
    """Refuse a text that is no regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


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
        """Let the head and each parameter called `bias`, or `q_bias` and the like, learn."""
        return rules_where(params, lambda param: param.is_head or _is_bias(param))


def _is_bias(param: ParamInfo) -> bool:
    """Tell biases of layers; those that attention keeps for pairs of places are tables."""
    last = param.name.rpartition(".")[2]
    return last == "bias" or (last.endswith("_bias") and param.ndim == 1)


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


class LoraSettings(Section):
    """What the adapters of a stage are: beside a layer W of d by k a product B·A of small rank."""

    rank: WholeNumber = Field(
        8, ge=1, description="Width of an adapter; it has rank · (d + k) parameters."
    )
    alpha: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="An adapter adds alpha / rank · B·A; twice the rank unless given."
    )
    dropout: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0, description="Of what goes into an adapter, in training."
    )
    targets: str = Field(
        "auto",
        description="Which layers: auto takes every linear layer and 1 by 1 convolution outside "
        "the head; a regular expression, searched in the dotted name, other convolutions too.",
    )

    @field_validator("targets")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _compiling(value)

    @property
    def scaled_alpha(self) -> float:
        """The alpha in force; unless given 2 · rank, as in the authors' scripts for RoBERTa."""
        return 2.0 * self.rank if self.alpha is None else self.alpha

    def check(self) -> None:
        """Raise a MissingExtraError where the library that makes adapters is not installed."""
        if find_spec("peft") is None:
            raise MissingExtraError("train: {lora: …}", extra="lora")


class LoraPolicy(Section):
    """Adapters of low rank and the head learn (LoRA, 2106.09685); they are merged when saved."""

    lora: LoraSettings = Field(description="The adapters; {} takes every default.")

    def rules(self, params: Sequence[ParamInfo]) -> list[ParamRule]:
        """Let adapters and the head learn; adapters decay as other matrices: 0.1 by the authors."""
        return rules_where(params, lambda param: param.is_head or _ADAPTER in param.name)


class MatchPolicy(Section):
    """The head and the parameters whose name a regular expression finds learn."""

    match: str = Field(description="A regular expression, searched in the dotted name.")

    @field_validator("match")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return _compiling(value)

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


def lora_of(policy: object) -> LoraSettings | None:
    """Give the adapters that a policy asks for; None where it asks for none."""
    return policy.lora if isinstance(policy, LoraPolicy) else None


Policy = Annotated[
    AllPolicy
    | BiasPolicy
    | BlocksPolicy
    | HeadPolicy
    | LastBlocksPolicy
    | LastPolicy
    | LoraPolicy
    | MatchPolicy
    | NormPolicy
    | PythonPolicy,
    Component(holds="given"),
]
