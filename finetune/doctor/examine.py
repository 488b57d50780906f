"""All checks, in the order in which their findings are shown."""

from __future__ import annotations

from collections.abc import Iterable

from finetune.doctor.facts import Check, Facts, Finding
from finetune.doctor.hardware import (
    check_cores,
    check_device,
    check_disk,
    check_memory,
    check_precision,
    check_shared_memory,
)
from finetune.doctor.software import (
    check_extras,
    check_imports,
    check_libraries,
    check_python,
    check_torchvision,
)
from finetune.doctor.weights import check_cached, check_hub

__all__ = ["CHECKS", "can_run", "examine"]

CHECKS: dict[str, Check] = {
    "python": check_python,
    "libraries": check_libraries,
    "imports": check_imports,
    "torchvision": check_torchvision,
    "extras": check_extras,
    "device": check_device,
    "precision": check_precision,
    "memory": check_memory,
    "cores": check_cores,
    "shared memory": check_shared_memory,
    "disk": check_disk,
    "hub": check_hub,
    "cached": check_cached,
}


def examine(facts: Facts) -> tuple[Finding, ...]:
    """Judge the facts by every check.

    Returns:
        What each has to say, in the order of `CHECKS`; a check may have several findings, or none
        where what it needs could not be found out.
    """
    return tuple(finding for check in CHECKS.values() for finding in check(facts))


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether none of the findings prevents a run."""
    return all(finding.level != "problem" for finding in findings)
