"""The run folder: named, claimed, and never overwritten by accident."""

from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.runtime.folder import check_free, claim, next_run_path


def test_default_path_names_data_backbone_and_number(tmp_path: Path) -> None:
    path = next_run_path("photos/my birds", "hf-hub:user/net.x", root=tmp_path)
    assert path == tmp_path / "my_birds-net.x-001"


def test_csv_gives_its_name_without_ending_and_a_folder_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "birds.csv").touch()
    (tmp_path / "birds.v2").mkdir()
    assert next_run_path(tmp_path / "birds.csv", "net", root=tmp_path).name == "birds-net-001"
    assert next_run_path(tmp_path / "birds.v2", "net", root=tmp_path).name == "birds.v2-net-001"


def test_number_is_the_first_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "birds-net-001").mkdir()
    assert next_run_path("birds", "net", root=tmp_path).name == "birds-net-002"


def test_folder_with_files_of_a_run_is_kept_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("old")
    with pytest.raises(FinetuneError, match="exists and is not empty") as caught:
        claim(tmp_path)
    assert caught.value.hint == "choose another --out, or add --overwrite"
    assert (tmp_path / "recipe.yaml").read_text() == "old"


def test_overwrite_empties_the_folder_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("old")
    (tmp_path / "model").mkdir()
    claim(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_overwrite_never_deletes_what_no_run_made(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    with pytest.raises(FinetuneError, match="holds files but no run"):
        claim(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.doc").read_text() == "mine"


def test_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(FinetuneError, match="is a file, not a folder"):
        check_free(tmp_path / "out")


def test_checking_writes_nothing(tmp_path: Path) -> None:
    check_free(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()


def test_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FinetuneError, match="cannot write in"):
        check_free(tmp_path / "file" / "run")
