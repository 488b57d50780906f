"""The command line in this process: what it writes, its exit code, and a run made by it."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune.cli.app import main


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Made:
    """A run made by the command line.

    Attributes:
        folder: The run folder.
        data: The photos.
        answer: What the command wrote.
    """

    folder: Path
    data: Path
    answer: Answer


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `finetune` with these arguments."""

    def run(*arguments: str) -> Answer:
        code = main(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def made(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A probe on a random network of timm's tests: seconds."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    out, err = io.StringIO(), io.StringIO()
    arguments = ["--data", str(tiny_folder), "--out", str(folder), "--recipe", "probe"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["run", *arguments, "--backbone", "test_vit", "--no-pretrained"])
    return Made(folder, tiny_folder, Answer(code, out.getvalue(), err.getvalue()))
