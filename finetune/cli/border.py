"""The border at which errors become sentences and exit codes.

A FinetuneError becomes `error: <message>` and `hint: <hint>` on stderr and the exit code of its
class. Usage errors get the nearest name; SIGTERM ends a command as Ctrl-C does; a reader that has
left ends it quietly. What nobody foresaw is caught in `app.main` and told by `report_bug`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

import typer

from finetune.errors import FinetuneError, nearest
from finetune.runtime.space import is_lack_of_memory

__all__ = ["Interrupted", "UsageError", "guarded", "report_bug"]

# Careful: typer exports this class only by its subclass; newer versions carry their own copy of
# click, older ones import click itself.
ForeignUsageError: Any = typer.BadParameter.__mro__[1]

_BROKEN_PIPE = 128 + 13  # what a shell reports of a program that SIGPIPE ended


class UsageError(FinetuneError):
    """The command line is wrong: a flag or an argument."""

    exit_code = 2


class Interrupted(FinetuneError):
    """A person or the system ended the command; the message says what was left behind."""

    exit_code = 130


def guarded(call: Callable[[], int], *, debug: bool) -> int:
    """Run a command and turn its error into sentences on stderr and an exit code.

    Args:
        call: Parses and runs the command.
        debug: Show the traceback as well.

    Returns:
        The exit code of the process.
    """
    _open_closed_streams()
    _show_every_name(sys.stdout, sys.stderr)
    code = _guarded(call, debug=debug)
    try:
        sys.stdout.flush()
    except OSError as error:
        left = _output_lost(error)
        return code or left
    return code


def _guarded(call: Callable[[], int], *, debug: bool) -> int:
    """Run a command; what it wrote may not have left yet."""
    try:
        with _terminated_like_interrupted():
            return call()
    except FinetuneError as error:
        return _report(error, debug=debug)
    except ForeignUsageError as error:
        return _report(_explain_usage(error), debug=debug)
    except (KeyboardInterrupt, typer.Abort):
        return _report(Interrupted("interrupted"), debug=debug)
    except BrokenPipeError as error:
        return _output_lost(error)
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        return _report(_no_memory(), debug=debug)
    except OSError as error:
        if error.filename is None and error.errno == errno.ENOSPC:
            return _output_lost(error)
        if error.filename is None:
            raise
        return _report(FinetuneError(f"{error.filename}: {error.strerror}"), debug=debug)


def _output_lost(error: OSError) -> int:
    """End where nobody takes what is written on stdout, quietly where a reader has left.

    Files say by themselves that they cannot be written; what has no name is a stream.
    """
    # Let the interpreter's last flush go nowhere.
    with suppress(OSError, ValueError):  # a stream of a notebook or of a test has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return _BROKEN_PIPE
    reason = (error.strerror or str(error)).lower()
    return _report(FinetuneError(f"what this shows cannot be written: {reason}"), debug=False)


def report_bug(error: Exception, *, debug: bool) -> int:
    """Say in one sentence that something was not foreseen, and give the exit code."""
    if debug:
        traceback.print_exception(error)
    kind = type(error).__name__
    first = (str(error) or "no message").splitlines()[0]
    print(
        f"error: unexpected error {kind}: {first}; this is a bug in finetune\n"
        "hint: run it again with --debug and report what it shows",
        file=sys.stderr,
    )
    return 1


def _no_memory() -> FinetuneError:
    """Say that memory did not suffice, outside training, which names its batch itself."""
    return FinetuneError(
        "there is not enough memory for this",
        hint="end other programs, or lower runtime.workers and training.batch_size of the recipe; "
        "finetune doctor shows what is free",
    )


def _report(error: FinetuneError, *, debug: bool) -> int:
    """Write an error for a person and give its exit code."""
    if debug:
        traceback.print_exc()
    from finetune.cli.render import printable

    word = "" if isinstance(error, Interrupted) else "error: "
    for line in error.message.split("\n"):
        print(f"{word}{printable(line)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {printable(error.hint)}", file=sys.stderr)
    return error.exit_code


def _explain_usage(error: Any) -> UsageError:
    """Say what is wrong with the command line, with the nearest name there is."""
    context = error.ctx
    command = context.command_path if context else "finetune"
    wrong = getattr(error, "option_name", None)
    if wrong is not None and type(error).__name__ == "NoSuchOption":
        near = nearest(wrong, _option_names(context))
        return UsageError(
            f"{command} has no option {wrong}",
            hint=f"did you mean {near}?" if near else f"{command} --help lists them",
        )
    return UsageError(_usage_message(error), hint=f"{command} --help")


def _usage_message(error: Any) -> str:
    """Write the message of a usage error in one line, without the words of its library."""
    param = getattr(error, "param", None)
    wrong, _, _ = str(error.message).partition(", unable to parse")
    if param is not None and wrong.startswith("Input should"):
        return f"{param.opts[0]} {wrong.removeprefix('Input ')}"
    message = " ".join(error.format_message().split()).rstrip(".")
    return message[:1].lower() + message[1:]


def _option_names(context: Any) -> list[str]:
    """Name the long options of a command."""
    options = [name for param in context.command.get_params(context) for name in param.opts]
    return [name for name in options if name.startswith("--")]


def _open_closed_streams() -> None:
    """Open the streams that whoever started the command has closed: what is shown goes nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _show_every_name(*streams: TextIO) -> None:
    """Let a file name that is no text in the stream's encoding be shown, not end the command."""
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, for as long as it runs."""
    process = os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child that inherited this handler just ends
            os._exit(128 + number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
