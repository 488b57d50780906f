"""What a run will do first, tried in a process of its own: imports, and one small computation.

Notable choices: one process takes all steps, since most of them share what they import; where one
fails, another process takes the rest, without those that need the one that failed. So a library
that raises, crashes or hangs costs a finding and never the command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Attempt", "attempt"]

# All steps took 52 s on two cores with eight times as much to do as they can, 6 s by themselves.
_TIMEOUT_SECONDS = 300.0
# Step -> the step without which it is not worth trying.
_NEEDS = {
    "accelerate": "torch",
    "albumentations": "torch",
    "device": "torch",
    "pandas": "numpy",
    "sklearn": "numpy",
    "timm": "torchvision",
    "torchvision": "torch",
}


@dataclass(frozen=True, slots=True)
class Attempt:
    """How a step went.

    Attributes:
        failure: Why it failed, in one line; None where it did not.
        found: What it found out.
    """

    failure: str | None = None
    found: Mapping[str, Any] = field(default_factory=dict)


def attempt(
    steps: Sequence[str], *, timeout_seconds: float = _TIMEOUT_SECONDS
) -> dict[str, Attempt]:
    """Try steps in their order.

    Args:
        steps: Names of modules to import, and `device`.
        timeout_seconds: For each process; a step that is under way then has failed.

    Returns:
        By step; one that needs another which failed, or is not among them, is left out.
    """
    attempts: dict[str, Attempt] = {}
    while left := [one for one in steps if one not in attempts and _has_need(one, steps, attempts)]:
        attempts |= _run_child(left, timeout_seconds)
    return attempts


def _has_need(step: str, steps: Sequence[str], attempts: Mapping[str, Attempt]) -> bool:
    """Whether what a step needs is among the steps and has not failed, as far as is known."""
    need = _NEEDS.get(step)
    if need is None:
        return True
    has_failed = need in attempts and attempts[need].failure is not None
    return need in steps and not has_failed and _has_need(need, steps, attempts)


def _run_child(steps: Sequence[str], timeout_seconds: float) -> dict[str, Attempt]:
    """Let one process take steps until one fails; at least the first has an answer."""
    command = [sys.executable, "-P", "-m", "finetune.doctor.child", *steps]
    try:
        ended = subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
        written, reason = ended.stdout, _ending(ended.returncode)
    except subprocess.TimeoutExpired as error:
        written, reason = error.stdout or b"", f"no end within {timeout_seconds:.0f} seconds"
    attempts = {
        answer["step"]: Attempt(answer.get("failure"), answer.get("found", {}))
        for answer in map(json.loads, written.splitlines())
    }
    silent = next((step for step in steps if step not in attempts), None)
    if silent is not None and not any(one.failure for one in attempts.values()):
        attempts[silent] = Attempt(reason)
    return attempts


def _environment() -> dict[str, str]:
    """Give the process this one's modules, and keep every library off the network."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(place or os.getcwd() for place in sys.path),
        "HF_HUB_OFFLINE": "1",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }


def _ending(code: int) -> str:
    """Say how a process ended that left a step unanswered."""
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with code {code}"
