"""The command line as a whole: names, usage errors, `--debug` before and after the command."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from finetune.version import __version__

USAGE_ERRORS = [
    (["rnu"], "finetune has no command rnu", "did you mean run?"),
    (["qqqqqq"], "finetune has no command qqqqqq", "finetune --help lists them"),
    (["--versoin"], "finetune has no option --versoin", "did you mean --version?"),
    (
        ["run", "--bakbone", "x"],
        "finetune run has no option --bakbone",
        "did you mean --backbone?",
    ),
    (["run", "--recipes"], "finetune run has no option --recipes", "did you mean --recipe?"),
    (["run", "--resume"], "--resume needs a run folder", "finetune run --resume --out RUN"),
    (
        ["run", "--resume", "--overwrite", "--out", "x"],
        "--resume and --overwrite exclude each other",
        "leave one of them out",
    ),
    (["run", "--seed", "x"], "--seed should be a valid integer", "finetune run --help"),
    (["run", "--data"], "option '--data' requires an argument", "finetune --help"),
    (["run", "extra"], "got unexpected extra argument(s) (extra)", "finetune run --help"),
    (["recipes", "sow"], "finetune recipes has no command sow", "did you mean show?"),
    (["recipes", "show"], "missing argument 'NAME'", "finetune recipes show --help"),
    (["evaluate", "x"], "missing option '--data'", "finetune evaluate --help"),
    (["predict"], "missing argument 'RUN|MODEL'", "finetune predict --help"),
    (["predict", "x"], "missing argument 'PATH'", "finetune predict --help"),
    (
        ["predict", "x", "y", "--top-k", "0"],
        "--top-k should be greater than or equal to 1",
        "finetune predict --help",
    ),
    (
        ["predict", "x", "y", "--out", "z.txt"],
        "--out z.txt must end in .csv or .jsonl",
        "--out z.csv",
    ),
    (["sweep", "x"], "finetune has no command sweep", "finetune --help lists them"),
]


@pytest.mark.parametrize(("arguments", "message", "hint"), USAGE_ERRORS)
def test_a_wrong_command_line_is_a_sentence_with_a_hint(
    arguments: list[str], message: str, hint: str, call: Callable[..., Any]
) -> None:
    answer = call(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {message}\nhint: {hint}\n"


@pytest.mark.parametrize("arguments", [["--debug", "rnu"], ["backbones", "no-such", "--debug"]])
def test_debug_works_before_and_after_the_command(
    arguments: list[str], call: Callable[..., Any]
) -> None:
    assert call(*arguments).err.startswith("Traceback")


def test_the_version_is_shown(call: Callable[..., Any]) -> None:
    assert call("--version").out == f"finetune {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_the_help_is_shown(
    arguments: list[str], call: Callable[..., Any]
) -> None:
    answer = call(*arguments)
    assert answer.code == 0
    assert answer.out.startswith("Usage: finetune [OPTIONS] COMMAND")


COMMANDS = {
    "backbones", "cache", "check", "compare", "demo", "doctor", "evaluate", "predict", "recipes",
    "report", "run",
}  # fmt: skip
ABSENT = {"export", "suggest", "serve", "sweep"}


def test_the_help_names_what_exists_and_nothing_else(call: Callable[..., Any]) -> None:
    lines = call("--help").out.partition("Commands:")[2].splitlines()
    named = {line.split()[0] for line in lines if line.strip()}
    assert named == COMMANDS
    assert not named & ABSENT


@pytest.mark.parametrize("command", [*sorted(COMMANDS), "recipes check"])
def test_every_command_has_help_and_debug(command: str, call: Callable[..., Any]) -> None:
    shown = call(*command.split(), "--help").out
    assert "--debug" in shown
    assert "--help" in shown


@pytest.mark.parametrize(
    "command",
    ["run", "evaluate", "predict", "backbones", "doctor", "demo", "recipes ls", "recipes check"],
)
def test_a_command_whose_result_is_data_has_json(command: str, call: Callable[..., Any]) -> None:
    assert "--json" in call(*command.split(), "--help").out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("finetune re", {"recipes", "report"}),
        ("finetune recipes s", {"show", "schema"}),
        ("finetune run --backbone mobilenetv1_10", {"mobilenetv1_100", "mobilenetv1_100h"}),
        ("finetune run --backbone mobilenetv1_125.", {"mobilenetv1_125.ra4_e3600_r224_in1k"}),
        ("finetune run --recipe gra", {"gradual"}),
        ("finetune recipes show gra", {"gradual"}),
    ],
)
def test_the_shell_completes(typed: str, offered: set[str]) -> None:
    words = typed.split()
    environment = {
        **os.environ,
        "_FINETUNE_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
    }
    finished = subprocess.run(
        [sys.executable, "-m", "finetune"], env=environment, capture_output=True, text=True
    )
    assert set(finished.stdout.split()) == offered
