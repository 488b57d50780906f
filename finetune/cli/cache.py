"""`finetune cache`: what runs have stored for later ones, and how to be rid of it."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.border import UsageError
from finetune.cli.options import Debug, Json

if TYPE_CHECKING:
    from finetune.runtime.stores import StoreInfo

__all__ = ["cache"]

cache = typer.Typer(
    help="List and clear what runs store for later ones: activations of frozen layers.",
    rich_markup_mode=None,
    no_args_is_help=False,
)

_UNIT_SECONDS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_ID_LENGTH = 8  # letters of a store's name: no two of a few hundred stores begin alike


@cache.callback(invoke_without_command=True)
def _help(context: typer.Context, debug: Debug = False) -> None:
    """List and clear what runs store for later ones: activations of frozen layers."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@cache.command("ls", short_help="List the stores of activations.")
def list_all(json: Json = False, debug: Debug = False) -> None:
    """List the stores of activations: what each is of, images, size, last use.

    A store is used again by every run on the same photos with the same frozen layers.
    """
    from finetune.cli.render import Screen, print_json
    from finetune.runtime.space import size_words
    from finetune.runtime.stores import list_stores, stores_folder

    stores = list_stores(stores_folder())
    if json:
        print_json([_as_json(info) for info in stores])
        return
    screen = Screen(sys.stdout)
    if stores:
        _show(screen, stores)
    total = size_words(sum(info.num_bytes for info in stores))
    screen.line(f"{_counted(len(stores))}, {total}, in {stores_folder()}")


@cache.command("clear", short_help="Remove stores of activations that nobody uses.")
def clear(
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than", metavar="TIME", help="Only those unused for so long: 30d, 2w, 12h."
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove the stores of activations that no running process uses, and say what was freed.

    Nothing is lost but time: the next run computes what it needs again.

    Example: finetune cache clear --older-than 30d
    """
    from finetune.cli.render import Screen, print_json
    from finetune.runtime.space import size_words
    from finetune.runtime.stores import remove_stores, stores_folder

    unused_seconds = 0.0 if older_than is None else _parse_time(older_than)
    removal = remove_stores(stores_folder(), unused_seconds=unused_seconds)
    freed = sum(info.num_bytes for info in removal.removed)
    if json:
        print_json(
            {
                "freed_bytes": freed,
                "removed": [_as_json(info) for info in removal.removed],
                "kept_in_use": [_as_json(info) for info in removal.kept],
            }
        )
        return
    screen = Screen(sys.stdout)
    screen.line(f"{_counted(len(removal.removed))} removed, {size_words(freed)} freed")
    for info in removal.kept:
        screen.line(f"kept, since a process uses it: {_name(info)} ({_label(info)})")


def _show(screen: Any, stores: tuple[StoreInfo, ...]) -> None:
    """Write the table of stores."""
    from finetune.cli.render import Column, count
    from finetune.runtime.space import size_words

    columns = [
        Column("store", align="left"),
        Column("of", align="left", is_shortened=True),
        Column("images"),
        Column("size"),
        Column("last used"),
    ]
    now = time.time()
    rows = [
        (
            _name(info),
            _label(info),
            count(info.num_records),
            size_words(info.num_bytes),
            "in use" if info.is_in_use else _ago(now - info.last_used),
        )
        for info in stores
    ]
    screen.table(columns, rows)


def _as_json(info: StoreInfo) -> dict[str, Any]:
    """Give the object of one store."""
    return {
        "store": info.path.name,
        "of": info.label,
        "num_images": info.num_records,
        "num_bytes": info.num_bytes,
        "last_used": datetime.fromtimestamp(info.last_used, UTC).isoformat(timespec="seconds"),
        "is_in_use": info.is_in_use,
        "path": str(info.path),
    }


def _parse_time(text: str) -> float:
    """Read a time in seconds: 30d, 2w, 12h, 45m."""
    match = re.fullmatch(r"(\d+(?:[.]\d+)?)\s*([mhdw])", text.strip().lower())
    if match is None:
        raise UsageError(f"--older-than {text} is no time", hint="write --older-than 30d or 12h")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def _ago(seconds: float) -> str:
    """Write how long ago something was, in its largest whole unit."""
    for unit in ("d", "h", "m"):
        if seconds >= _UNIT_SECONDS[unit]:
            return f"{int(seconds // _UNIT_SECONDS[unit])} {'min' if unit == 'm' else unit} ago"
    return "just now"


def _counted(number: int) -> str:
    """Write a number of stores."""
    return f"{number} store" if number == 1 else f"{number} stores"


def _name(info: StoreInfo) -> str:
    """Give the beginning of a store's name."""
    return info.path.name[:_ID_LENGTH]


def _label(info: StoreInfo) -> str:
    """Say what a store is of."""
    return info.label or "unreadable"
