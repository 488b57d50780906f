"""`finetune report`: the page of a finished run, made anew from its files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from finetune.cli.options import Debug, at_home

__all__ = ["report"]


def report(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A run folder, or what evaluate --out wrote.", callback=at_home
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR|CSV",
            help="Where the photos are now, if they moved.",
            callback=at_home,
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="FILE.json",
            help="Show what finetune check --out FILE.json found in these photos as well.",
            callback=at_home,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write report.html and plots/ into a run folder: what the model learned, on one page.

    The page is one file that opens without a network. It is made of the files of the run alone;
    the photos are read again for small pictures and, with the saved model, for maps of where it
    looked. An earlier page there is replaced.

    Example: finetune report runs/photos-efficientnet_b0-001
    """
    from finetune.cli.render import Screen, count
    from finetune.report.report import write_report

    written = write_report(run, data=data, check=check)
    if written.num_missing:
        Screen(sys.stderr).warn(
            f"{count(written.num_missing)} of {count(written.num_photos)} photos are shown by name "
            f"only ({written.reason}); --data says where the photos are"
        )
    Screen(sys.stdout).line(str(written.path))
