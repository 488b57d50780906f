"""The fix list: a CSV that the check proposes, a person edits, and a run honours.

    path,finding,action,reason

One row a file and finding. What has `exclude` as its action takes no part in a run that is given
the list; `keep` says that a person looked, or shall look. No file is ever changed or deleted.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from finetune.data.findings import Finding
from finetune.data.index import leave_out
from finetune.data.words import counted
from finetune.errors import DataError, join_names
from finetune.runtime.csv_text import csv_text
from finetune.runtime.files import write_text
from finetune.types import Index

__all__ = ["Action", "Fix", "apply_fixes", "propose_fixes", "read_fixes", "write_fixes"]

Action = Literal["keep", "exclude"]

_COLUMNS = ("path", "finding", "action", "reason")
_HINT = f"the header is {','.join(_COLUMNS)}; finetune check DIR --out FILE.json writes one"
# Of what cannot be read a run is rid in any case. Of equal files one is enough, and what stands in
# train and in another part serves the figures where it stays out of train. All else is a person's.
_EXCLUDED = ("empty", "truncated", "unreadable", "leak", "duplicate")
_UNDECIDED = (
    "near_leak",
    "conflict",
    "near_conflict",
    "suspect_label",
    "near_duplicate",
    "similar",
)


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do about one file.

    Attributes:
        path: The file, as tables name it.
        finding: Kind of finding; anything where a person wrote the row.
        action: What a run does with the file.
        reason: What was found.
    """

    path: str
    finding: str
    action: Action
    reason: str


def propose_fixes(findings: Sequence[Finding], index: Index) -> tuple[Fix, ...]:
    """Propose what to do about each file that one may want to leave out.

    Proposed is only what no one would miss: to leave out what cannot be read, all but the first of
    equal files, and from train what stands in another part byte for byte.
    """
    parts = {sample.name: sample.split for sample in index.samples}
    rows = []
    for finding in findings:
        if finding.kind in (*_EXCLUDED, *_UNDECIDED):
            rows += [
                Fix(name, finding.kind, _action(finding, place, parts.get(name)), finding.detail)
                for place, name in enumerate(finding.names)
            ]
    return tuple(rows)


def write_fixes(fixes: Sequence[Fix], path: Path) -> None:
    """Write a fix list; what a person decided in an earlier one there stays.

    Rows of the earlier list keep their action; those that nothing was found for any more follow
    the others.

    Raises:
        DataError: The earlier file is no fix list.
        FinetuneError: The disk is full or the folder cannot be written.
    """
    earlier = {(row.path, row.finding): row for row in read_fixes(path)} if path.exists() else {}
    rows = [_COLUMNS]
    for fix in fixes:
        decided = earlier.pop((fix.path, fix.finding), fix)
        rows.append((fix.path, fix.finding, decided.action, fix.reason))
    rows += [(row.path, row.finding, row.action, row.reason) for row in earlier.values()]
    write_text(path, csv_text(rows))


def read_fixes(path: Path) -> tuple[Fix, ...]:
    """Read a fix list.

    Raises:
        DataError: It cannot be read, lacks a column, or has an unknown action; the sentence names
            the lines.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_rows(csv.DictReader(file, strict=True)))
    except OSError as error:
        raise DataError(f"cannot read the fix list {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the fix list {path} is no UTF-8 CSV: {error}", hint=_HINT) from error
    except KeyError as error:
        raise DataError(f"the fix list {path} has no column {error}", hint=_HINT) from error
    wrong = [(line, fix) for line, fix in rows if fix.action not in get_args(Action)]
    if wrong:
        seen = join_names([f"{fix.action!r} (line {line})" for line, fix in wrong])
        raise DataError(
            f"the fix list {path} has an unknown action: {seen}",
            hint=f"allowed are {' and '.join(get_args(Action))}",
        )
    return tuple(fix for _, fix in rows)


def apply_fixes(index: Index, path: Path) -> Index:
    """Leave out of an index what a fix list excludes; a path that it lacks is said.

    Raises:
        DataError: The list cannot be read, or leaves nothing.
    """
    excluded = {fix.path for fix in read_fixes(path) if fix.action == "exclude"}
    unknown = sorted(excluded - {sample.name for sample in index.samples})
    said = []
    if unknown:
        paths = counted(len(unknown), "path", "that is/that are")
        said.append(f"{path.name} excludes {paths} not among the photos: {join_names(unknown)}")
    return leave_out(index, excluded, reason=f"excluded by {path.name}", warnings=said)


def _action(finding: Finding, place: int, part: str | None) -> Action:
    """Propose what to do about one file of a finding."""
    if finding.kind == "leak":
        return "exclude" if part == "train" else "keep"
    if finding.kind == "duplicate":
        return "exclude" if place else "keep"
    return "exclude" if finding.kind in _EXCLUDED else "keep"


def _rows(reader: "csv.DictReader[str]") -> Iterator[tuple[int, Fix]]:
    """Read the rows with their lines; only path and action must be there."""
    for row in reader:
        action = (row["action"] or "").strip().lower()
        fix = Fix(row["path"], row.get("finding") or "", action, row.get("reason") or "")  # type: ignore[arg-type]
        yield reader.line_num, fix
