"""What the installed distributions declare to need, read from their metadata; nothing is imported.

Notable choices: a requirement counts where its marker holds here; the extras of other
distributions are not followed; a requirement that breaks the standard's grammar is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from finetune.doctor.facts import Extra, Need

__all__ = ["installed_version", "is_within", "python_range", "read_extras", "read_needs"]

_FOR_DEVELOPERS = ("dev", "docs")


def read_needs(distribution: str) -> tuple[Need, ...]:
    """Read what a distribution needs, then what that needs, and so on.

    Returns:
        Its own needs first; empty where it is not installed.
    """
    waiting, found = [distribution], list[Need]()
    seen: set[str] = {canonicalize_name(distribution)}
    while waiting:
        by = waiting.pop(0)
        for need in _needs_of(by, extra=""):
            found.append(need)
            if need.installed is not None and need.name not in seen:
                seen.add(need.name)
                waiting.append(need.name)
    return tuple(found)


def read_extras(distribution: str) -> tuple[Extra, ...]:
    """Read the optional dependencies of a distribution, those for its developers left out."""
    try:
        names = metadata.metadata(distribution).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return ()
    always = set(_needs_of(distribution, extra=""))
    return tuple(
        Extra(name, tuple(n for n in _needs_of(distribution, extra=name) if n not in always))
        for name in names
        if name not in _FOR_DEVELOPERS
    )


def python_range(distribution: str) -> str | None:
    """Give the versions of Python that a distribution declares; None where it is not installed."""
    try:
        ranges = metadata.metadata(distribution).get_all("Requires-Python") or []
    except metadata.PackageNotFoundError:
        return None
    return ",".join(_range(SpecifierSet(one)) for one in ranges) or None


def installed_version(distribution: str) -> str | None:
    """Give the installed version of a distribution; None where it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def is_within(version: str, allowed: str) -> bool:
    """Whether a version is in a range; pre-releases count, and a local tag does not.

    >>> is_within("2.13.0+cpu", "==2.13.0"), is_within("2.5.1", ">=2.6,<3")
    (True, False)
    """
    try:
        return SpecifierSet(allowed).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def _needs_of(distribution: str, *, extra: str) -> Iterator[Need]:
    """Read the requirements of one distribution that hold on this machine."""
    try:
        texts = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return
    for text in texts:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            name = canonicalize_name(requirement.name)
            yield Need(distribution, name, _range(requirement.specifier), installed_version(name))


def _range(specifiers: SpecifierSet) -> str:
    """Write a range from its lower end: `>=2.6,<3`."""
    return ",".join(sorted((str(one) for one in specifiers), reverse=True))
