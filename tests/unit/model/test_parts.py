"""What identifies a frozen computation: the code of one's own modules counts as well."""

import pytest
import torch
from torch import nn

from finetune.model.parts import digest_of


def test_the_code_of_a_module_of_ones_own_counts() -> None:
    def made(exponent: int) -> nn.Module:
        class Pool(nn.Module):
            def forward(self, values: torch.Tensor) -> torch.Tensor:
                return values.mean((2, 3)) if exponent else values.amax((2, 3))

        class Other(nn.Module):
            def forward(self, values: torch.Tensor) -> torch.Tensor:
                return values.sum((2, 3)) if exponent else values.amax((2, 3))

        Other.__qualname__ = Pool.__qualname__
        return (Pool if exponent else Other)()

    assert digest_of(made(1), "head_inputs") == digest_of(made(1), "head_inputs")
    assert digest_of(made(0), "head_inputs") != digest_of(made(1), "head_inputs")


def _halve(values: torch.Tensor) -> torch.Tensor:
    return values / 2


def _double(values: torch.Tensor) -> torch.Tensor:
    return values * 2


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 2.0},
        {"half": staticmethod(_double)},
        {"gain": property(_double)},
        {"half": classmethod(_double)},
        {"forward": torch.no_grad()(_double)},
        {"forward": lambda self, values, scale=2.0: values * scale},
    ],
)
def test_all_that_stands_in_a_class_of_ones_own_counts(change: dict[str, object]) -> None:
    plain = {
        "scale": 1.0,
        "half": staticmethod(_halve),
        "gain": property(_halve),
        "forward": torch.no_grad()(_halve),
    }
    classes = [type("Own", (nn.Module,), {**plain, **more}) for more in ({}, {}, change)]
    first, same, other = (digest_of(made(), "head_inputs") for made in classes)
    assert first == same != other
