"""Checks of what is installed: versions that fit, libraries that load, the torch/torchvision pair.

A range of this package that is not met is a problem, since nobody has run it so. A range between
two other libraries is a warning: where it breaks something, an import says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finetune.doctor.facts import Facts, Finding, Need
from finetune.doctor.needs import is_within
from finetune.errors import DISTRIBUTION, join_names

__all__ = [
    "check_extras",
    "check_imports",
    "check_libraries",
    "check_python",
    "check_torchvision",
]


def check_python(facts: Facts) -> Iterator[Finding]:
    """Check that this version of Python is one that the package supports."""
    python, allowed = facts.software.python, facts.software.python_allowed
    if allowed is None:
        yield Finding("python", "ok", f"this is Python {python}")
    elif is_within(python, allowed):
        yield Finding("python", "ok", f"this is Python {python}, within {allowed}")
    else:
        yield Finding(
            "python",
            "problem",
            f"this is Python {python}, and {DISTRIBUTION} needs {allowed}",
            f"python3.12 -m venv .venv && .venv/bin/pip install {DISTRIBUTION}",
        )


def check_libraries(facts: Facts) -> Iterator[Finding]:
    """Check that what the package needs is installed, and that versions fit each other."""
    version, needs = facts.software.version, facts.software.needs
    if version is None:
        yield Finding(
            "libraries",
            "warning",
            f"{DISTRIBUTION} runs from its source and is not installed: which versions it needs "
            "is not known",
            f"pip install {DISTRIBUTION}",
        )
        return
    unmet = [need for need in needs if not _is_met(need)]
    for need in unmet:
        yield Finding(
            "libraries",
            "problem" if need.by == DISTRIBUTION else "warning",
            f"{need.by} needs {need.requirement}, and {_installed(need)}",
            _install([need]),
        )
    own = [need for need in needs if need.by == DISTRIBUTION]
    if not unmet:
        yield Finding(
            "libraries",
            "ok",
            f"{DISTRIBUTION} {version} has the {len(own)} libraries that it needs, "
            "and their versions fit each other",
        )


def check_imports(facts: Facts) -> Iterator[Finding]:
    """Check that every library that a run uses can be imported."""
    for failure in facts.software.failures:
        name = failure.distribution
        names = ("torch", "torchvision") if name in ("torch", "torchvision") else (name,)
        yield Finding(
            "imports",
            "problem",
            f"{name} cannot be imported: {failure.reason}",
            _install_anew(facts, names),
        )
    if not facts.software.failures:
        yield Finding("imports", "ok", "every library that is installed for a run can be imported")


def check_torchvision(facts: Facts) -> Iterator[Finding]:
    """Check that torchvision is built for this torch; a run does without its operators."""
    torch = facts.software.torch
    if torch is None or torch.torchvision is None:
        return
    if torch.has_ops:
        message = f"torchvision {torch.torchvision} fits torch {torch.version}"
        yield Finding("torchvision", "ok", message)
        return
    yield Finding(
        "torchvision",
        "warning",
        f"torchvision {torch.torchvision} is not built for torch {torch.version}: its operators "
        "do not load; a run needs none of them, other programs may",
        _install_anew(facts, ("torch", "torchvision")),
    )


def check_extras(facts: Facts) -> Iterator[Finding]:
    """Check which optional dependencies are installed."""
    for extra in facts.software.extras:
        full = f"{DISTRIBUTION}[{extra.name}]"
        install = f'pip install "{full}"'
        unmet = [need for need in extra.needs if not _is_met(need)]
        outdated = [need for need in unmet if need.installed is not None]
        if not unmet:
            shown = join_names([f"{need.name} {need.installed}" for need in extra.needs])
            yield Finding("extras", "ok", f"the extra {extra.name} is installed: {shown}")
        elif outdated:
            need = outdated[0]
            message = f"{full} needs {need.requirement}, and {_installed(need)}"
            yield Finding("extras", "warning", message, install)
        else:
            missing = join_names([need.name for need in unmet])
            message = f"the extra {extra.name} is not installed: {missing}"
            yield Finding("extras", "ok", message, install)


def _is_met(need: Need) -> bool:
    """Whether what is installed is in the range."""
    return need.installed is not None and is_within(need.installed, need.allowed)


def _installed(need: Need) -> str:
    """Say what is there instead."""
    return "it is not installed" if need.installed is None else f"{need.installed} is installed"


def _install(needs: Sequence[Need]) -> str:
    """Give the command that installs versions in their ranges."""
    return "pip install " + " ".join(f'"{need.requirement}"' for need in needs)


def _install_anew(facts: Facts, names: Sequence[str]) -> str:
    """Give the command that replaces installed files, within the ranges of this package."""
    ranges = {need.name: need for need in facts.software.needs if need.by == DISTRIBUTION}
    needs = [ranges.get(name, Need(DISTRIBUTION, name, "", None)) for name in names]
    return _install(needs).replace("install", "install --force-reinstall", 1)
