"""Trackers as a recipe names them, and what is done for them around a run."""

import os
from pathlib import Path

import pytest

from finetune.components import trackers
from finetune.components.trackers import MlflowTracker, TrackSection, failures_of
from finetune.errors import MissingExtraError, RecipeError
from finetune.recipe.check import require_extras
from finetune.recipe.load import load_recipe


def test_no_tracker_is_told_unless_it_is_named() -> None:
    assert load_recipe("default").track.to == ()


def test_a_flag_names_trackers_by_their_words() -> None:
    recipe = load_recipe("default", overrides=["track.to=[tensorboard, wandb]"])
    assert [tracker.kind for tracker in recipe.track.to] == ["tensorboard", "wandb"]


def test_an_unknown_tracker_is_told_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("default", overrides=["track.to=[tensorbord]"])
    (problem,) = caught.value.problems
    assert (problem.path, problem.hint) == ("track.to.0", "did you mean tensorboard?")


def test_a_tracker_that_is_named_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"to\.1: mlflow is named twice"):
        TrackSection(to=["mlflow", {"kind": "mlflow", "uri": "http://other"}])


@pytest.mark.parametrize("uri", ["https://me:secret@host/x", "postgresql+psycopg://me@host/db"])
def test_a_user_or_a_password_has_no_place_in_a_recipe(uri: str) -> None:
    with pytest.raises(RecipeError, match="a recipe is saved with its model"):
        MlflowTracker(uri=uri)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "sqlite:////data/a@b.db", "databricks"])
def test_any_other_address_is_taken(uri: str) -> None:
    assert MlflowTracker(uri=uri).uri == uri


def test_a_recipe_with_a_tracker_needs_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    require_extras(load_recipe("default"))
    with pytest.raises(MissingExtraError, match=r"track: \{to: \[tensorboard\]\} needs a package"):
        require_extras(load_recipe("default", overrides=["track.to=[tensorboard]"]))


def test_a_folder_of_files_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_tracker").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError):
        trackers._require("a_tracker")


def test_what_a_person_has_set_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_ONE", "mine")
    monkeypatch.delenv("FINETUNE_OTHER", raising=False)
    with trackers._environment({"FINETUNE_ONE": "ours", "FINETUNE_OTHER": "ours"}):
        assert (os.environ["FINETUNE_ONE"], os.environ["FINETUNE_OTHER"]) == ("mine", "ours")
    assert os.environ["FINETUNE_ONE"] == "mine"
    assert "FINETUNE_OTHER" not in os.environ


def test_an_interruption_is_no_failure_of_a_tracker() -> None:
    assert not issubclass(KeyboardInterrupt, failures_of())
    assert issubclass(ConnectionError, failures_of())


def test_errors_of_a_service_are_known_once_it_is_loaded() -> None:
    exceptions = pytest.importorskip("mlflow.exceptions", reason="mlflow is not installed")
    assert issubclass(exceptions.MlflowException, failures_of())
