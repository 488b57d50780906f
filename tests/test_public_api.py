"""What others rely on stays: the names of the face, their signatures, the tree of errors."""

import doctest
import importlib
import inspect
import subprocess
import sys

import pytest
import sources

import finetune
from finetune import errors

DOCTESTED = [
    name
    for name, source in sources.modules().items()
    if any(line.lstrip().startswith(">>> ") for line in source.text.splitlines())
]


def parameters(function: object) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]  # type: ignore[arg-type]


def test_the_face_is_four_names() -> None:
    assert finetune.__all__ == ["Classifier", "Recipe", "__version__", "load"]


@pytest.mark.parametrize("name", finetune.__all__)
def test_a_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(finetune, name) is not None
    assert name in dir(finetune)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'finetune' has no attribute 'Clasifier'"):
        finetune.Clasifier  # noqa: B018


def test_the_classifier_takes_what_the_contract_says() -> None:
    assert parameters(finetune.Classifier.__init__) == [
        "backbone", "recipe", "weights", "pretrained", "out", "device", "seed", "on_event",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("fit", ["X", "y"]),
        ("predict", ["X"]),
        ("predict_proba", ["X"]),
        ("score", ["X", "y"]),
        ("save", ["folder"]),
        ("load", ["path"]),
    ],
)
def test_a_method_takes_what_the_contract_says(method: str, expected: list[str]) -> None:
    assert parameters(getattr(finetune.Classifier, method))[: len(expected)] == expected


@pytest.mark.parametrize(
    ("name", "parents", "exit_code"),
    [
        ("FinetuneError", {Exception}, 1),
        ("RecipeError", {ValueError}, 2),
        ("DataError", {ValueError}, 3),
        ("BackboneError", {ValueError}, 4),
        ("TrainingError", {RuntimeError}, 5),
        ("BundleError", set(), 6),
        ("ExportError", set(), 6),
        ("MissingExtraError", {ImportError}, 7),
        ("NotFittedError", {ValueError, AttributeError}, 1),
    ],
)
def test_an_error_keeps_its_place_in_the_tree(
    name: str, parents: set[type], exit_code: int
) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.FinetuneError)
    assert error.exit_code == exit_code
    assert set(error.__mro__) >= parents


@pytest.mark.parametrize("name", sorted(set(sources.modules()) - {"finetune.__main__"}))
def test_a_module_has_the_names_that_it_exports(name: str) -> None:
    module = importlib.import_module(name)
    missing = [one for one in getattr(module, "__all__", []) if not hasattr(module, one)]
    assert missing == []


def test_the_module_runs_as_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "finetune", "--version"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, f"finetune {finetune.__version__}\n")


def test_examples_in_docstrings_are_found() -> None:
    assert len(DOCTESTED) >= 5


@pytest.mark.parametrize("name", DOCTESTED)
def test_examples_in_docstrings_give_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
