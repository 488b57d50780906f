"""The process that imports what a run imports, and computes where a run would compute.

`attempts.py` starts it: whatever a broken library does (raise, crash, hang) befalls this process
alone. After each step one line of JSON goes to stdout; what libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import Any, TextIO

from finetune.torchvision_ops import register_missing_ops

__all__ = ["main"]


def main(steps: Sequence[str]) -> None:
    """Take steps one after another; the first that fails ends the process.

    Args:
        steps: Names of modules to import, and `device`.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for step in steps:
        sys.excepthook = partial(_answer_failure, answers, step)
        _answer(answers, step=step, found=_SPECIAL.get(step, partial(_import, step))())


def _answer(answers: TextIO, **answer: Any) -> None:
    """Write one line of JSON."""
    print(json.dumps(answer), file=answers, flush=True)


def _answer_failure(
    answers: TextIO,
    step: str,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
) -> None:
    """Say in one line what was raised; of a chain, where it began."""
    while error.__cause__ is not None:
        error = error.__cause__
    first, name = _first_line(str(error)), type(error).__name__
    _answer(answers, step=step, failure=f"{name}: {first}" if first else name)


def _import(name: str) -> Mapping[str, Any]:
    """Import a module."""
    importlib.import_module(name)
    return {}


def _look_at_torch() -> Mapping[str, Any]:
    """Import torch and say how it is built."""
    import torch

    return {"version": torch.__version__, "cuda": torch.version.cuda}


def _look_at_torchvision() -> Mapping[str, Any]:
    """Import torchvision as a run does, and say whether its own operators loaded."""
    has_ops = not register_missing_ops()
    import torchvision

    return {"torchvision": torchvision.__version__, "has_ops": has_ops}


def _look_at_device() -> Mapping[str, Any]:
    """Choose the device as a run does, compute there, and say what memory it has."""
    import torch

    from finetune.runtime.device import machine_facts

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        machine = machine_facts()
    ones = torch.ones(8, 8, device=machine.device)
    float((ones @ ones).sum())
    free, total = None, None
    note = _first_line(str(caught[0].message)) if caught else None
    if machine.device.startswith("cuda"):
        free, total = torch.cuda.mem_get_info(torch.device(machine.device))
    return {"machine": asdict(machine), "note": note, "free_bytes": free, "total_bytes": total}


def _first_line(text: str) -> str:
    """Give the first line that says something; empty where none does."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


_SPECIAL: dict[str, Callable[[], Mapping[str, Any]]] = {
    "device": _look_at_device,
    "torch": _look_at_torch,
    "torchvision": _look_at_torchvision,
}

if __name__ == "__main__":
    main(sys.argv[1:])
