"""Paths as a person writes them, made absolute once: what is read is then what is recorded."""

import os
from pathlib import Path

__all__ = ["absolute_path"]


def absolute_path(path: str | Path) -> Path:
    """Make a path absolute: `~` is the home folder, and `..` is followed as the system does.

    Links are kept otherwise: photos beside a linked CSV are found beside the link.
    """
    place = Path(os.path.expanduser(path)).absolute()  # Path.expanduser raises for unknown users
    if ".." not in place.parts:
        return place
    return place.resolve() if place.name == ".." else place.parent.resolve() / place.name
