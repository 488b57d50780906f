"""From sections to one HTML file that needs nothing else: no network, no other file.

The only file that imports Jinja2. Every value is escaped unless this package made its markup. The
content policy allows the style and the script of the page by their digests, and nothing else: what
came in by a name could not run even if it were not escaped.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.report.plots import COLOURS
from finetune.report.words import (
    as_percent,
    between,
    count,
    duration,
    points,
    points_between,
)
from finetune.runtime.files import write_with
from finetune.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

    from finetune.report.photos import Photo
    from finetune.report.source import Section

__all__ = ["Head", "render_page", "write_page"]

_TEMPLATES = files("finetune.report") / "templates"
# From a grey map to colours over a photo: steps of red, green, blue and opacity from 0 to 1. Where
# nothing speaks for a class the photo is bare. Lightness rises all the way, so that it can be read
# without telling hues apart, as in matplotlib's inferno, whose upper part this is.
_HEAT = {
    "R": "0.30 0.55 0.80 0.95 0.99",
    "G": "0.05 0.12 0.25 0.55 0.95",
    "B": "0.45 0.42 0.28 0.05 0.55",
    "A": "0 0.35 0.55 0.68 0.78",
}


@dataclass(frozen=True, slots=True)
class Head:
    """What a page is called.

    Attributes:
        title: Of the page and of its tab.
        subtitle: A few words below it.
        origin: What it was made from, and what makes it anew.
    """

    title: str
    subtitle: str
    origin: str


def render_page(
    head: Head,
    sections: Sequence[Section],
    photos: Mapping[str, Photo],
    details: Mapping[str, Mapping[str, object]] | None = None,
) -> str:
    """Write a page.

    Args:
        head: What it is called.
        sections: In their order; the first is what a person reads first.
        photos: Those that the sections refer to, by anchor; each is embedded once.
        details: What is shown of a photo when it is opened, by its anchor.

    Returns:
        HTML; the same values give the same text.
    """
    environment = _environment()
    style = environment.get_template("page.css").render(colours=COLOURS)
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        head=head,
        sections=sections,
        photos=photos,
        details=details or {},
        style=_trusted(style),
        script=_trusted(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
        heat=_HEAT,
        version=__version__,
    )


def write_page(text: str, path: Path) -> None:
    """Write the text of a page, whole or not at all.

    Raises:
        FinetuneError: The disk is full or the folder cannot be written.
    """
    # What is no valid text of a file name stands in tables as \udcXX, and so it does in a page.
    write_with(path, lambda to: to.write_bytes(text.encode("utf-8", "backslashreplace")))


@cache
def _environment() -> Environment:
    """Set up the templates: everything is escaped, an unknown name is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("finetune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": as_percent,
        "between": between,
        "count": count,
        "duration": duration,
        "points": points,
        "points_between": points_between,
        "trusted": _trusted,
    }
    return environment


def _trusted(markup: str) -> Any:
    """Mark what this package wrote as markup."""
    from markupsafe import Markup

    return Markup(markup)


def _digest(text: str) -> str:
    """Give the digest by which a content policy knows a style or a script."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode("ascii")
