"""Paths as a person writes them, made absolute once: what is read is then what is recorded."""

import os
from pathlib import Path

__all__ = ["absolute_path", "real_path"]


def absolute_path(path: str | Path) -> Path:
    """Make a path absolute: `~` is the home folder, and `..` is followed as the system does.

    Links are kept otherwise: photos beside a linked CSV are found beside the link.
    """
    place = Path(os.path.expanduser(path)).absolute()  # Path.expanduser raises for unknown users
    if ".." not in place.parts:
        return place
    return place.resolve() if place.name == ".." else place.parent.resolve() / place.name


def real_path(path: str | Path) -> Path:
    """Name the place itself that a path leads to now, to be recorded: links may be led elsewhere.

    A linked file keeps its name and its folder, which its content may be relative to.
    """
    place = absolute_path(path)
    return place.resolve() if place.is_dir() else place.parent.resolve() / place.name
