"""Everything a terminal shows goes through a `Screen`; the only file that imports rich.

Notable choices: a table that is wider than the terminal shortens names, in the middle, and never
a figure; a stream that is no terminal gets all of the text, no colour and no animation, but a
plain line every few seconds; names are shown with control characters escaped, so that no file name
can move the cursor. rich honours NO_COLOR and TERM=dumb.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TextIO

from finetune.report.words import count, duration, short_count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = [
    "Column",
    "Screen",
    "count",
    "duration",
    "figure",
    "print_json",
    "print_json_rows",
    "printable",
    "short_count",
]

_GAP = "  "
_NO_LIMIT = 1_000_000  # columns of a stream that is no terminal
_NARROW = 72  # columns below which a bar leaves out the rate
_MIN_SHORTENED = 8  # a shortened cell keeps at least this many columns
_PLAIN_SECONDS = 10.0  # between two plain lines about the same piece of work
_REFRESH_SECONDS = 0.2
_JOINERS = "\u200c\u200d"  # invisible, but part of words in some scripts


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        title: Its heading.
        align: Text stands left, figures right.
        is_shortened: Whether it may be shortened where the terminal is narrow.
    """

    title: str
    align: Literal["left", "right"] = "right"
    is_shortened: bool = False


class Screen:
    """One stream as a person sees it: lines, tables and the progress of one piece of work.

    Args:
        stream: stdout for results, stderr for the course of things.
        clock: Seconds; progress is drawn by it.
    """

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._console: Console | None = None
        self._bar: Progress | None = None
        self._label = ""
        self._drawn_at = 0.0

    @property
    def console(self) -> Console:
        """The console of rich on this stream, made when it is first needed."""
        if self._console is None:
            from rich.console import Console

            class Piped(Console):
                """Leaves it to the border where a reader has left."""

                def on_broken_pipe(self) -> None:
                    raise

            self._console = Piped(
                file=self._stream, markup=False, emoji=False, highlight=False, soft_wrap=True
            )
        return self._console

    @property
    def width(self) -> int:
        """Columns of the terminal; practically no limit where there is none."""
        if self._stream.isatty() or "COLUMNS" in os.environ:
            return self.console.width
        return _NO_LIMIT

    @property
    def is_animated(self) -> bool:
        """Whether a bar can be drawn over and over."""
        return self._stream.isatty() and not self.console.is_dumb_terminal

    def line(self, text: str = "", *, style: str = "") -> None:
        """Write a line, or several, names in it escaped; the terminal wraps it."""
        shown = "\n".join(map(printable, text.split("\n")))
        self.console.print(shown, style=style or None, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Write a warning, in one line."""
        self.line(f"warning: {printable(text)}", style="yellow")

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
        """Write a table with its headings, indented by two."""
        head, *body = lay_out(columns, rows, width=self.width - len(_GAP))
        self.line(_GAP + head, style="bold")
        for text in body:
            self.line(_GAP + text)

    def entries(self, rows: Sequence[tuple[str, str]]) -> None:
        """Write names with what they are, sentences that are wrapped beside their name."""
        from textwrap import wrap

        indent = max(len(name) for name, _ in rows) + 2 * len(_GAP)
        for name, text in rows:
            first, *rest = wrap(text, max(20, self.width - indent)) or [""]
            self.line(f"{_GAP}{name}".ljust(indent) + first)
            for more in rest:
                self.line(" " * indent + more)

    def progress(self, label: str, done: int, total: int, rate: float) -> None:
        """Show how far a piece of work is.

        Args:
            label: The piece; a new label begins a new bar.
            done: Images done.
            total: Images in all.
            rate: Images per second since the piece began; 0 where unknown.
        """
        now = self._clock()
        if label != self._label:
            self.end_progress()
            self._label, self._drawn_at = label, now
            if self.is_animated:
                self._bar = self._begin_bar(label, total)
        if self._bar is not None:
            self._draw_bar(done, total, rate, now)
        elif now - self._drawn_at >= _PLAIN_SECONDS and done < total:
            self._drawn_at = now
            self.line(f"{_GAP}{label}: {done} of {total} images{_GAP}{_speed(done, total, rate)}")

    def end_progress(self) -> None:
        """Take the bar away; what was written above it stays."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        self._label = ""

    def _begin_bar(self, label: str, total: int) -> Progress:
        """Start an empty bar, drawn only when asked: no thread that a worker could inherit."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        bar = Progress(
            TextColumn(_GAP.strip() + "{task.description}"),
            BarColumn(bar_width=min(30, max(5, self.width - 55))),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=self.console,
            transient=True,
            auto_refresh=False,
        )
        bar.add_task(label, total=total, speed="")
        bar.start()
        return bar

    def _draw_bar(self, done: int, total: int, rate: float, now: float) -> None:
        """Move the bar, a few times a second at most."""
        if self._bar is None or (now - self._drawn_at < _REFRESH_SECONDS and done < total):
            return
        self._drawn_at = now
        speed = _speed(done, total, rate, is_brief=self.width < _NARROW)
        self._bar.update(self._bar.task_ids[0], completed=done, total=total, speed=speed)
        self._bar.refresh()


def lay_out(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> list[str]:
    """Set a table in lines, headings first, without trailing blanks.

    Args:
        columns: At least one.
        rows: Cells by column.
        width: Columns of the terminal; the shortened column gives way.
    """
    from rich.cells import cell_len

    cells = [
        [column.title for column in columns],
        *([printable(cell) for cell in row] for row in rows),
    ]
    widths = [max(cell_len(row[index]) for row in cells) for index in range(len(columns))]
    _make_room(columns, widths, width)
    lines = []
    for row in cells:
        parts = []
        for column, text, room in zip(columns, row, widths, strict=True):
            shown = _shorten(text, room)
            blanks = " " * (room - cell_len(shown))
            parts.append(shown + blanks if column.align == "left" else blanks + shown)
        lines.append(_GAP.join(parts).rstrip())
    return lines


def _make_room(columns: Sequence[Column], widths: list[int], width: int) -> None:
    """Narrow what may be shortened, the widest first, until the table fits or all are short."""
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    shortened = [index for index, column in enumerate(columns) if column.is_shortened]
    for _ in range(excess):
        widest = max(shortened, key=lambda index: widths[index], default=None)
        if widest is None or widths[widest] <= _MIN_SHORTENED:
            return
        widths[widest] -= 1


def printable(text: str) -> str:
    r"""Escape what would act on a terminal instead of being shown.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in _JOINERS else repr(letter)[1:-1]
        for letter in text
    )


def figure(value: float | None, digits: int = 3) -> str:
    """Write a figure in [0, 1] or a loss; a dash where it is undefined."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def print_json(document: Any, *, indent: int | None = 1) -> None:
    """Write a document to stdout as JSON; NaN is refused.

    Characters of any script stand there as they are, where the stream is UTF-8: in other encodings
    what they lack would be no JSON.
    """
    sys.stdout.write(_json_text(document, indent=indent) + "\n")


def print_json_rows(rows: Iterable[Mapping[str, object]]) -> None:
    """Write an array of objects to stdout as JSON, a line each, as they come; NaN is refused."""
    mark = "[\n "
    for row in rows:
        sys.stdout.write(mark + _json_text(row, indent=None))
        mark = ",\n "
    sys.stdout.write("[]\n" if mark[0] == "[" else "\n]\n")


def _json_text(document: Any, *, indent: int | None) -> str:
    """Write JSON for the encoding of stdout."""
    is_plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    return json.dumps(document, ensure_ascii=is_plain, indent=indent, allow_nan=False)


def _speed(done: int, total: int, rate: float, *, is_brief: bool = False) -> str:
    """Say how fast it goes and how long it will take; briefly only the latter."""
    if rate <= 0:
        return ""
    left = f"{duration((total - done) / rate)} left"
    speed = f"{rate:.0f}" if rate >= 10 else f"{rate:.1f}"
    return left if is_brief else f"{speed} images/s, {left}"


def _shorten(text: str, room: int) -> str:
    """Cut the middle out of a text that is too wide."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= room:
        return text
    front = (room - 1) // 2
    back = room - 1 - front
    tail = set_cell_size(text[::-1], back)[::-1]
    return f"{set_cell_size(text, front)}…{tail}"
