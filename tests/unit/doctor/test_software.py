"""What the doctor says of versions, imports and the pair of torch and torchvision."""

from dataclasses import replace

import pytest
from planted import HEALTHY, PAIR, PEFT, TORCH, TORCHVISION, with_software

from finetune.doctor.facts import Extra, Facts, Finding, ImportFailure, TorchFacts
from finetune.doctor.software import (
    check_extras,
    check_imports,
    check_libraries,
    check_python,
    check_torchvision,
)
from finetune.errors import DISTRIBUTION

ANEW = 'pip install --force-reinstall "torch>=2.6,<3" "torchvision>=0.21,<1"'
INSTALL_LORA = 'pip install "finetune-vision[lora]"'


def with_extra(installed: str | None) -> Facts:
    return with_software(extras=(Extra("lora", (replace(PEFT, installed=installed),)),))


def test_a_python_outside_the_range_is_a_problem() -> None:
    assert list(check_python(with_software(python="3.14.0"))) == [
        Finding(
            "python",
            "problem",
            "this is Python 3.14.0, and finetune-vision needs >=3.11,<3.14",
            "python3.12 -m venv .venv && .venv/bin/pip install finetune-vision",
        )
    ]


def test_a_python_of_which_no_range_is_known_is_named() -> None:
    assert list(check_python(with_software(python_allowed=None))) == [
        Finding("python", "ok", "this is Python 3.12.3")
    ]


@pytest.mark.parametrize(
    ("installed", "said"),
    [("2.5.1+cu121", "2.5.1+cu121 is installed"), (None, "it is not installed")],
)
def test_a_library_that_this_package_needs_otherwise_is_a_problem(
    installed: str | None, said: str
) -> None:
    needs = (replace(TORCH, installed=installed), TORCHVISION)
    assert list(check_libraries(with_software(needs=needs))) == [
        Finding(
            "libraries",
            "problem",
            f"finetune-vision needs torch>=2.6,<3, and {said}",
            'pip install "torch>=2.6,<3"',
        )
    ]


def test_libraries_that_do_not_fit_each_other_are_a_warning() -> None:
    needs = (TORCH, TORCHVISION, replace(PAIR, installed="2.12.0"))
    assert list(check_libraries(with_software(needs=needs))) == [
        Finding(
            "libraries",
            "warning",
            "torchvision needs torch==2.13.0, and 2.12.0 is installed",
            'pip install "torch==2.13.0"',
        )
    ]


def test_every_library_that_does_not_fit_is_named() -> None:
    needs = (replace(TORCH, installed="3.1"), replace(TORCHVISION, installed="1.0"))
    found = list(check_libraries(with_software(needs=needs)))
    assert [finding.hint for finding in found] == [
        'pip install "torch>=2.6,<3"',
        'pip install "torchvision>=0.21,<1"',
    ]


def test_a_package_that_is_not_installed_declares_nothing() -> None:
    assert list(check_libraries(with_software(version=None, needs=()))) == [
        Finding(
            "libraries",
            "warning",
            "finetune-vision runs from its source and is not installed: which versions it needs is "
            "not known",
            "pip install finetune-vision",
        )
    ]


def test_a_library_that_cannot_be_imported_is_a_problem() -> None:
    failures = (ImportFailure("numpy", "ImportError: libz.so.1: cannot open shared object file"),)
    assert list(check_imports(with_software(failures=failures))) == [
        Finding(
            "imports",
            "problem",
            "numpy cannot be imported: ImportError: libz.so.1: cannot open shared object file",
            'pip install --force-reinstall "numpy"',
        )
    ]


@pytest.mark.parametrize("name", ["torch", "torchvision"])
def test_torch_and_torchvision_are_installed_anew_together(name: str) -> None:
    failures = (ImportFailure(name, "the process was ended by SIGILL"),)
    assert list(check_imports(with_software(failures=failures))) == [
        Finding(
            "imports",
            "problem",
            f"{name} cannot be imported: the process was ended by SIGILL",
            ANEW,
        )
    ]


def test_a_torchvision_built_for_another_torch_is_a_warning() -> None:
    torch = TorchFacts("2.13.0+cpu", None, "0.28.0+cu130", False)
    assert list(check_torchvision(with_software(torch=torch))) == [
        Finding(
            "torchvision",
            "warning",
            "torchvision 0.28.0+cu130 is not built for torch 2.13.0+cpu: its operators do not "
            "load; a run needs none of them, other programs may",
            ANEW,
        )
    ]


def test_a_torchvision_that_cannot_be_imported_is_left_to_the_imports() -> None:
    torch = TorchFacts("2.13.0+cpu", None)
    assert list(check_torchvision(with_software(torch=torch))) == []


def test_an_extra_that_is_not_installed_is_named_with_what_installs_it() -> None:
    assert list(check_extras(with_extra(None))) == [
        Finding("extras", "ok", "the extra lora is not installed: peft", INSTALL_LORA)
    ]


def test_an_extra_of_another_version_is_a_warning() -> None:
    assert list(check_extras(with_extra("0.10.0"))) == [
        Finding(
            "extras",
            "warning",
            "finetune-vision[lora] needs peft>=0.18,<1, and 0.10.0 is installed",
            INSTALL_LORA,
        )
    ]


def test_the_facts_planted_are_of_this_distribution() -> None:
    assert {need.by for need in HEALTHY.software.needs} == {DISTRIBUTION, "torchvision"}
