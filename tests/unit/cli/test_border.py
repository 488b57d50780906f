"""Errors become one sentence, a hint and an exit code; nothing else is shown unless asked for."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from finetune import errors
from finetune.cli.border import Interrupted, UsageError, guarded, report_bug
from finetune.errors import FinetuneError, MissingExtraError, Problem, RecipeError

Call = Callable[..., object]

CODES = [
    (FinetuneError("no"), 1),
    (RecipeError([Problem("a.b", "no")]), 2),
    (UsageError("no"), 2),
    (errors.DataError("no"), 3),
    (errors.BackboneError("no"), 4),
    (errors.TrainingError("no"), 5),
    (errors.BundleError("no"), 6),
    (errors.ExportError("no"), 6),
    (MissingExtraError("it", extra="onnx"), 7),
    (errors.NotFittedError("no"), 1),
    (Interrupted("no"), 130),
    (KeyboardInterrupt(), 130),
]


def failing(error: BaseException) -> Callable[[], int]:
    def call() -> int:
        raise error

    return call


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_exit_code(error: BaseException, code: int) -> None:
    assert guarded(failing(error), debug=False) == code


def test_an_error_is_a_sentence_and_a_hint_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(failing(FinetuneError("it is so", hint="type this")), debug=False)
    assert capsys.readouterr() == ("", "error: it is so\nhint: type this\n")


def test_each_problem_of_a_recipe_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem("lr", "too large", line=3), Problem("", "no stages")]
    guarded(failing(RecipeError(problems, source="my.yaml")), debug=False)
    assert capsys.readouterr().err == (
        "error: my.yaml:3: lr: too large\nerror: my.yaml: no stages\n"
    )


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(failing(FinetuneError("it is so")), debug=True)
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert shown.endswith("error: it is so\n")


def test_without_debug_no_traceback_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(failing(KeyboardInterrupt()), debug=False)
    assert capsys.readouterr().err == "interrupted\n"


def test_a_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    error = PermissionError(13, "Permission denied", "photos/a.jpg")
    assert guarded(failing(error), debug=False) == 1
    assert capsys.readouterr().err == "error: photos/a.jpg: Permission denied\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    ],
)
def test_a_lack_of_memory_is_no_bug(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(failing(error), debug=False) == 1
    first, hint = capsys.readouterr().err.splitlines()
    assert first == "error: there is not enough memory for this"
    assert hint.startswith("hint: end other programs")


def test_another_fault_of_a_library_is_passed_on() -> None:
    with pytest.raises(RuntimeError, match="sizes of tensors"):
        guarded(failing(RuntimeError("sizes of tensors must match")), debug=False)


def test_what_nobody_foresaw_is_called_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert report_bug(ZeroDivisionError("division by zero"), debug=False) == 1
    assert capsys.readouterr().err == (
        "error: unexpected error ZeroDivisionError: division by zero; this is a bug in finetune\n"
        "hint: run it again with --debug and report what it shows\n"
    )


def test_what_nobody_foresaw_has_a_traceback_with_debug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report_bug(ZeroDivisionError("division by zero"), debug=True)
    assert "ZeroDivisionError: division by zero\nerror:" in capsys.readouterr().err


def test_sigterm_ends_a_command_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def call() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal did not arrive")

    assert guarded(call, debug=False) == 130
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    code = (
        "import sys\n"
        "from finetune.cli.border import guarded\n"
        "def write():\n"
        "    while True: print('x' * 100)\n"
        "sys.exit(guarded(write, debug=False))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_name_that_is_no_text_is_shown_escaped() -> None:
    code = (
        "import sys\n"
        "from finetune.cli.border import guarded\n"
        "sys.exit(guarded(lambda: print('a\\udcffb') or 0, debug=False))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout == "a\\udcffb\n"


def test_a_name_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    guarded(failing(FinetuneError("no \x1b[2Jx\r", hint="\x1b[1m")), debug=False)
    assert capsys.readouterr().err == "error: no \\x1b[2Jx\\r\nhint: \\x1b[1m\n"


COMMANDS = {
    "answers": "print('{}')",
    "fails": "print('{}'); raise FinetuneError('no', hint='go')",
}


def run_with(streams: str, body: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of a shell, in which a program has streams that are closed or broken."""
    code = (
        "import sys\n"
        "from finetune.cli.border import guarded\n"
        "from finetune.errors import FinetuneError\n"
        f"def call():\n    {body}\n    return 0\n"
        "sys.exit(guarded(call, debug=False))\n"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {streams}; echo code $? >&3"
    return subprocess.run(
        ["bash", "-c", f"exec 3>&2; {line}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    )


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of Unix")
@pytest.mark.parametrize(
    ("streams", "body", "code", "told"),
    [
        (">&-", COMMANDS["answers"], 0, ""),
        (">&-", COMMANDS["fails"], 1, "error: no\nhint: go\n"),
        ("2>&-", COMMANDS["fails"], 1, ""),
        ("<&-", "sys.stdin.read()", 0, ""),
        pytest.param(
            "> /dev/full",
            COMMANDS["answers"],
            1,
            "error: what this shows cannot be written: no space left on device\n",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux has /dev/full"),
        ),
        ("| true; (exit ${PIPESTATUS[0]})", "import time; time.sleep(0.3); print(1)", 141, ""),
        (
            "| true; (exit ${PIPESTATUS[0]})",
            "import time; time.sleep(0.3); " + COMMANDS["fails"],
            1,
            "error: no\nhint: go\n",
        ),
    ],
)
def test_streams_that_are_closed_or_full_change_no_exit_code(
    streams: str, body: str, code: int, told: str
) -> None:
    done = run_with(streams, body)
    assert done.stderr == f"{told}code {code}\n"
