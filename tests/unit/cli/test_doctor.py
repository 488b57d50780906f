"""`finetune doctor`: what it writes, and how it ends."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planted import HEALTHY, with_device, with_software

from finetune.doctor.examine import CHECKS
from finetune.doctor.facts import Facts, TorchFacts

UNFIT = TorchFacts("2.13.0+cpu", None, "0.28.0+cu130", False)
ANEW = 'pip install --force-reinstall "torch>=2.6,<3" "torchvision>=0.21,<1"'
BROKEN = "raise OSError('libtorch.so: cannot open shared object file')"


@pytest.fixture
def examined(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command on a machine of planted facts."""

    def run(facts: Facts, *arguments: str) -> Any:
        monkeypatch.setattr("finetune.doctor.gather.gather_facts", lambda *, offline: facts)
        return call("doctor", *arguments)

    return run


def test_a_healthy_machine_ends_with_zero(examined: Callable[..., Any]) -> None:
    answer = examined(HEALTHY)
    assert (answer.code, answer.err) == (0, "importing what a run imports\n")
    lines = answer.out.splitlines()
    assert lines[0] == "  ok       this is Python 3.12.3, within >=3.11,<3.14"
    assert lines[-2:] == ["", "nothing prevents a run"]


def test_a_warning_is_followed_by_its_remedy(examined: Callable[..., Any]) -> None:
    answer = examined(with_software(torch=UNFIT))
    assert answer.code == 0
    assert (
        "  warning  torchvision 0.28.0+cu130 is not built for torch 2.13.0+cpu: its operators do "
        "not load; a run needs none of them, other programs may\n"
        f"           {ANEW}\n"
    ) in answer.out
    assert answer.out.endswith("\n\nnothing prevents a run; 1 warning\n")


def test_a_problem_ends_with_one(examined: Callable[..., Any]) -> None:
    facts = replace(
        with_device(machine=None, failure="RuntimeError: CUDA error"),
        cpu_quota=2.0,
        memory_bytes=1 << 30,
    )
    answer = examined(facts)
    assert answer.code == 1
    assert answer.out.endswith("\n\n2 problems prevent a run; 1 warning\n")
    assert examined(replace(HEALTHY, memory_bytes=1)).out.endswith("\n1 problem prevents a run\n")


def test_json_has_the_fields_that_are_documented(examined: Callable[..., Any]) -> None:
    answer = examined(replace(with_software(torch=UNFIT), memory_bytes=1), "--json")
    assert answer.code == 1
    document = json.loads(answer.out)
    assert (document.keys(), document["schema_version"]) == (
        {"schema_version", "can_run", "findings"},
        1,
    )
    assert document["can_run"] is False
    by_check = {finding["check"]: finding for finding in document["findings"]}
    assert by_check["memory"] == {
        "check": "memory",
        "level": "problem",
        "message": "1 B of memory are free; even a probe takes about 1.2 GiB",
        "hint": "top",
    }
    assert by_check["python"]["hint"] is None
    assert by_check["torchvision"]["level"] == "warning"


def test_a_sentence_is_wrapped_and_its_remedy_is_not(
    examined: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    lines = examined(with_software(torch=UNFIT)).out.splitlines()
    begin = lines.index("  warning  torchvision 0.28.0+cu130 is not built")
    assert lines[begin + 1] == "           for torch 2.13.0+cpu: its operators do"
    assert f"           {ANEW}" in lines


@pytest.mark.slow
def test_this_machine_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    ended = doctor(tmp_path, "--json", "--offline")
    document = json.loads(ended.stdout)
    assert (ended.returncode, document["can_run"]) == (0, True), ended.stdout
    found = {finding["check"] for finding in document["findings"]}
    assert found <= CHECKS.keys()
    assert found >= {"python", "libraries", "imports", "torchvision", "device", "precision", "hub"}
    messages = [finding["message"] for finding in document["findings"]]
    assert (
        "the Hugging Face hub is not asked (--offline), and no weights are cached: they must come "
        "from a folder or a file"
    ) in messages
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_torch_that_cannot_be_imported_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(BROKEN)
    ended = doctor(tmp_path, "--offline", PYTHONPATH=str(tmp_path))
    assert ended.returncode == 1
    assert (
        "  problem  torch cannot be imported: OSError: libtorch.so: cannot open shared object file"
    ) in ended.stdout.splitlines()
    assert ended.stdout.endswith("\n1 problem prevents a run; 1 warning\n")
    assert ended.stderr == "importing what a run imports\n"


def doctor(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process and a folder of its own."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "finetune", "doctor", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
