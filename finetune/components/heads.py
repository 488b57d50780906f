"""Heads: what turns pooled features of a backbone into one logit a class.

`linear` is timm's own classifier, so that what is saved stays a plain timm model. Every other head
is a module of ours on the features before the classifier (`forward_head(pre_logits=True)`), and so
is a linear one on features of several depths (Head2Toe, 2201.03529).
"""

from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import Field, field_serializer

from finetune.components.component import Component, PythonObject, class_name
from finetune.components.section import Number, Section, WholeNumber

if TYPE_CHECKING:
    from torch import nn

__all__ = ["CosineHead", "Head", "HeadBuilder", "LinearHead", "MlpHead", "PythonHead"]


class HeadBuilder(Protocol):
    """Anything that builds a head; Python users may pass their own."""

    def build(self, in_features: int, num_classes: int) -> "nn.Module":
        """Build the module: (B, D) features → (B, K) logits."""
        ...


class CosineHead(Section):
    """Scaled cosine similarity to one learned direction a class (1804.09458)."""

    kind: Literal["cosine"] = "cosine"
    scale: Number = Field(16.0, gt=0, description="Initial factor on the cosine; it is learned.")

    def build(self, in_features: int, num_classes: int) -> "nn.Module":
        """Build the module: (B, D) features → (B, K) logits."""
        import torch
        from torch import nn
        from torch.nn import functional

        class Cosine(nn.Module):
            """Cosine similarity of features and class directions, times a learned scale."""

            def __init__(self, scale: float) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.empty(num_classes, in_features))
                self.scale = nn.Parameter(torch.tensor([scale]))
                nn.init.normal_(self.weight, std=in_features**-0.5)

            def forward(self, features: torch.Tensor) -> torch.Tensor:
                directions = functional.normalize(self.weight, dim=1)
                return functional.linear(functional.normalize(features, dim=1), directions) * (
                    self.scale
                )

        return Cosine(self.scale)


class LinearHead(Section):
    """One linear layer: timm's own classifier, or one on features of several depths."""

    kind: Literal["linear"] = "linear"
    depths: WholeNumber = Field(
        1,
        ge=1,
        le=64,
        description="Last feature maps of the backbone whose means are put side by side.",
    )

    def build(self, in_features: int, num_classes: int) -> "nn.Module":
        """Build the module: (B, D) features → (B, K) logits; used where timm has no classifier."""
        from torch import nn

        return nn.Linear(in_features, num_classes)


class MlpHead(Section):
    """Two linear layers with batch-free normalisation and GELU between them."""

    kind: Literal["mlp"] = "mlp"
    hidden: WholeNumber = Field(512, ge=1, description="Width of the hidden layer.")
    dropout: Number = Field(0.2, ge=0, lt=1, description="Dropout before the last layer.")

    def build(self, in_features: int, num_classes: int) -> "nn.Module":
        """Build the module: (B, D) features → (B, K) logits."""
        from torch import nn

        return nn.Sequential(
            nn.LayerNorm(in_features),
            nn.Linear(in_features, self.hidden),
            nn.GELU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, num_classes),
        )


class PythonHead(Section):
    """A head given from Python, never from a file: any object with the verb `build`."""

    kind: Literal["python"] = "python"
    given: Annotated[HeadBuilder, PythonObject("a head", verb="build", place="head")]

    @field_serializer("given", when_used="json")
    def _name(self, value: object) -> str:
        return class_name(value)

    def build(self, in_features: int, num_classes: int) -> "nn.Module":
        """Build the module: (B, D) features → (B, K) logits."""
        return self.given.build(in_features, num_classes)


Head = Annotated[CosineHead | LinearHead | MlpHead | PythonHead, Component(holds="given")]
