r"""Text of CSV files as every program reads it (RFC 4180), with `\n` line ends.

A cell with a comma, a quote or any line break is quoted, a carriage return included, which Python's
csv module leaves bare where lines end in `\n`: macOS has files of such a name.
"""

from collections.abc import Iterable

__all__ = ["csv_text", "quoted"]


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Write rows, each ended; a cell that is None is empty."""
    return "".join(
        ",".join("" if cell is None else quoted(str(cell)) for cell in row) + "\n" for row in rows
    )


def quoted(text: str) -> str:
    """Quote a cell that would otherwise not be one cell."""
    if not any(mark in text for mark in ',"\r\n'):
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'
