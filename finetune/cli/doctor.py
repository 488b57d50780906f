"""`finetune doctor`: what stands between this machine and a run, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finetune.cli.options import Debug, Json

if TYPE_CHECKING:
    from finetune.cli.render import Screen
    from finetune.doctor.facts import Finding

__all__ = ["doctor"]

_STYLES = {"ok": "", "warning": "yellow", "problem": "bold red"}
_INDENT = "  "
_LEVEL_WIDTH = len("problem") + len(_INDENT)
_NARROWEST = 20  # columns that a sentence gets on any terminal


def doctor(
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Do not ask the Hugging Face hub whether it is there."),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what stands between this machine and a run, each with the command that mends it.

    Versions, device and precision, memory, cores, disk, weights. Everything that a run imports is
    imported in a process of its own, which takes some seconds. The Hugging Face hub is asked once,
    for three seconds at most, unless --offline or HF_HUB_OFFLINE=1 forbids it.

    Exit code: 0 where nothing prevents a run, else 1.
    """
    from finetune.cli.render import Screen, print_json
    from finetune.doctor.examine import can_run, examine
    from finetune.doctor.gather import gather_facts

    Screen(sys.stderr).line("importing what a run imports")
    findings = examine(gather_facts(offline=offline))
    if json:
        print_json(_as_json(findings))
    else:
        _show(Screen(sys.stdout), findings)
    if not can_run(findings):
        raise typer.Exit(1)


def _as_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Give the document: docs/how-to/doctor.md describes it."""
    from finetune.doctor.examine import can_run

    return {
        "schema_version": 1,
        "can_run": can_run(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _show(screen: Screen, findings: Sequence[Finding]) -> None:
    """Write each finding with its remedy below it, then what they come to."""
    from finetune.cli.render import printable

    indent = len(_INDENT) + _LEVEL_WIDTH
    for finding in findings:
        style = _STYLES[finding.level]
        lines = wrap(printable(finding.message), max(_NARROWEST, screen.width - indent))
        screen.line(_INDENT + finding.level.ljust(_LEVEL_WIDTH) + lines[0], style=style)
        for line in lines[1:]:
            screen.line(" " * indent + line, style=style)
        if finding.hint:  # in one piece, so that it can be copied
            screen.line(" " * indent + printable(finding.hint), style="bold")
    screen.line()
    _show_sum(screen, findings)


def _show_sum(screen: Screen, findings: Sequence[Finding]) -> None:
    """Write what the findings come to."""
    levels = [finding.level for finding in findings]
    problems, warnings = levels.count("problem"), levels.count("warning")
    aside = f"; {_count(warnings, 'warning')}" if warnings else ""
    if problems:
        verb = "prevents" if problems == 1 else "prevent"
        screen.line(f"{_count(problems, 'problem')} {verb} a run{aside}", style=_STYLES["problem"])
    else:
        screen.line(f"nothing prevents a run{aside}", style="bold")


def _count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
