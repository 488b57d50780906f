"""Paths as a person writes them, made absolute once: what is read is then what is recorded."""

import os
from pathlib import Path

__all__ = ["absolute_path", "existing_part", "home_path", "real_path"]


def home_path(path: str | Path) -> Path:
    """Give a path with `~` as the home folder; a shell leaves it alone in `--out=~/run`.

    Unlike `Path.expanduser` it takes the name of an unknown user as it stands.
    """
    return Path(os.path.expanduser(path))


def absolute_path(path: str | Path) -> Path:
    """Make a path absolute: `~` is the home folder, and `..` is followed as the system does.

    Links are kept otherwise: photos beside a linked CSV are found beside the link.
    """
    place = home_path(path).absolute()
    if ".." not in place.parts:
        return place
    return place.resolve() if place.name == ".." else place.parent.resolve() / place.name


def existing_part(path: Path) -> Path:
    """Give what there is of a path: itself, or the nearest folder above it."""
    whole = path.absolute()
    # Of a drive that is not there, there is nothing.
    return next((place for place in (whole, *whole.parents) if place.exists()), whole)


def real_path(path: str | Path) -> Path:
    """Name the place itself that a path leads to now, to be recorded: links may be led elsewhere.

    A linked file keeps its name and its folder, which its content may be relative to.
    """
    place = absolute_path(path)
    return place.resolve() if place.is_dir() else place.parent.resolve() / place.name
