"""Imports are tried in a process of its own: whatever they do befalls that process alone."""

from pathlib import Path

import pytest

from finetune.doctor.attempts import Attempt, attempt

pytestmark = pytest.mark.slow

MODULES = {
    "whole": "print('a library that talks')",
    "chained": "try:\n    import nowhere\nexcept ImportError as e:\n"
    "    raise RuntimeError('read this first') from e",
    "crashing": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)",
    "ending": "import sys\nsys.exit(3)",
    "speechless": "raise ValueError",
    "hanging": "import time\ntime.sleep(600)",
    "torch": "raise OSError('libcudart.so.13: cannot open shared object file\\nmore')",
}


@pytest.fixture(autouse=True)
def _modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))


def test_a_step_that_fails_does_not_take_the_others_with_it() -> None:
    steps = ("whole", "chained", "json", "crashing", "ending", "speechless", "shlex")
    assert attempt(steps) == {
        "whole": Attempt(),
        "chained": Attempt("ModuleNotFoundError: No module named 'nowhere'"),
        "json": Attempt(),
        "crashing": Attempt("the process was ended by SIGSEGV"),
        "ending": Attempt("the process ended with code 3"),
        "speechless": Attempt("ValueError"),
        "shlex": Attempt(),
    }


def test_what_needs_a_step_that_failed_is_not_tried() -> None:
    assert attempt(("torch", "torchvision", "timm", "device", "json")) == {
        "torch": Attempt("OSError: libcudart.so.13: cannot open shared object file"),
        "json": Attempt(),
    }


def test_a_step_that_hangs_is_ended() -> None:
    assert attempt(("hanging",), timeout_seconds=5.0) == {
        "hanging": Attempt("no end within 5 seconds")
    }
