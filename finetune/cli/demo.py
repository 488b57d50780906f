"""`finetune demo`: the embedded example, from photos to figures, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Debug, Json

__all__ = ["demo"]


def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where photos and runs are written.")
    ] = Path("demo-data"),
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Fine-tune the starter network on handwritten digits; no photos and no network needed."""
