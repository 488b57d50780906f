"""What the peers share: arguments, the network from its folder, and what is measured of it.

Nothing of training stands here: how a library loads, trains and validates is in its own script.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import prelude  # noqa: F401  # before anything that imports torchvision
import timm
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jobs

__all__ = [
    "Measured",
    "data_config",
    "jobs",
    "make_network",
    "parse",
    "set_learning",
    "share_right",
]


def parse(name: str) -> argparse.Namespace:
    """Read the arguments, which are the same for every peer."""
    parser = argparse.ArgumentParser(description=f"{name}: one job, one line of JSON")
    parser.add_argument("--job", choices=tuple(jobs.JOBS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="train/ and val/, or photos")
    parser.add_argument("--weights", type=Path, help="a folder as timm saves it")
    parser.add_argument("--model", type=Path, help="of --save, to predict with")
    parser.add_argument("--save", type=Path, help="where to save the trained model")
    parser.add_argument(
        "--work", type=Path, required=True, help="an empty folder for what it keeps"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, help="the library's own default where absent")
    parser.add_argument("--max-epochs", type=int, help="shortens every phase, to try things out")
    parser.add_argument("--frozen-bn", action="store_true", help="frozen BatchNorm scales as well")
    parser.add_argument("--own-head", action="store_true", help="the library's head, not a layer")
    return parser.parse_args()


def make_network(weights: Path, num_classes: int) -> nn.Module:
    """Make the pretrained backbone with a new linear head; none where there are no classes."""
    name = f"local-dir:{weights}"
    network: nn.Module = timm.create_model(name, pretrained=True, num_classes=num_classes)
    return network


def data_config(network: nn.Module) -> dict[str, Any]:
    """Give size, mean, std, interpolation and crop of the weights."""
    config: dict[str, Any] = timm.data.resolve_model_data_config(network)
    return config


def set_learning(network: nn.Module, what: str) -> list[nn.Parameter]:
    """Let the parameters of a phase learn and no other, and give them."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad = jobs.learns(name, what)
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def share_right(paths: list[Path], predicted: list[str]) -> float:
    """Give the share of photos whose folder has the name that was predicted."""
    right = sum(path.parent.name == name for path, name in zip(paths, predicted, strict=True))
    return right / len(paths)


class Measured:
    """What is measured of one job: seconds, accuracies, drift; `show` prints it as JSON.

    Args:
        given: The arguments.
        libraries: Distributions whose versions are told.
    """

    def __init__(self, given: argparse.Namespace, *libraries: str) -> None:
        self.accuracies: list[float] = []
        self.images_seen = 0
        self._given = given
        self._seconds = 0.0
        self._trained = 0
        self._drift: float | None = None
        self._norms: dict[str, nn.Module] = {}
        self._before: dict[str, torch.Tensor] = {}
        self._versions = {name: version(name) for name in ("torch", "timm", *libraries)}

    @contextmanager
    def loop(self) -> Iterator[None]:
        """Time what is done inside, which may be in several pieces."""
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    def watch(self, backbone: nn.Module) -> None:
        """Remember the statistics of the BatchNorms that the job freezes."""
        norms = {n: m for n, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
        frozen = set(jobs.frozen_names([f"{name}." for name in norms], self._given.job))
        self._norms = {name: module for name, module in norms.items() if f"{name}." in frozen}
        self._before = {name: value.clone() for name, value in self._statistics()}

    def note_drift(self) -> None:
        """Compare the statistics with those remembered: the largest relative change by norm."""
        changes = [
            float((value - self._before[name]).norm() / self._before[name].norm())
            for name, value in self._statistics()
        ]
        self._drift = max(changes, default=None)

    def note_trained(self, parameters: Any) -> None:
        """Count the parameters that the last phase trains."""
        self._trained = sum(parameter.numel() for parameter in parameters)

    def show(self, **more: Any) -> None:
        """Print what was measured as one line of JSON."""
        row = {
            "loop_seconds": round(self._seconds, 4),
            "best_accuracy": max(self.accuracies, default=None),
            "last_accuracy": self.accuracies[-1] if self.accuracies else None,
            "accuracies": self.accuracies,
            "images_seen": self.images_seen,
            "drift": self._drift,
            "trained_parameters": self._trained,
            "versions": self._versions,
            **more,
        }
        print(json.dumps(row), flush=True)

    def _statistics(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, module in self._norms.items():
            yield f"{name}.running_mean", module.running_mean
            yield f"{name}.running_var", module.running_var
