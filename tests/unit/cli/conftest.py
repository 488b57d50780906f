"""The command line in this process: what it writes, and its exit code."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from finetune.cli.app import main


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `finetune` with these arguments."""

    def run(*arguments: str) -> Answer:
        code = main(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run
