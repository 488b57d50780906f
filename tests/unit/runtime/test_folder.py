"""The run folder: named, claimed, and never overwritten by accident."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.runtime.folder import check_free, claim, claim_next


def test_default_path_names_data_backbone_and_number(tmp_path: Path) -> None:
    folder = claim_next("photos/my birds", "hf-hub:user/net.x", root=tmp_path)
    assert folder.path == tmp_path / "my_birds-net.x-001"
    assert folder.contents() == ()


def test_csv_gives_its_name_without_ending_and_a_folder_its_whole_name(tmp_path: Path) -> None:
    (tmp_path / "birds.csv").touch()
    (tmp_path / "birds.v2").mkdir()
    root = tmp_path / "runs"
    assert claim_next(tmp_path / "birds.csv", "net", root=root).path.name == "birds-net-001"
    assert claim_next(tmp_path / "birds.v2", "net", root=root).path.name == "birds.v2-net-001"


def test_number_is_the_first_that_is_free(tmp_path: Path) -> None:
    (tmp_path / "birds-net-001").mkdir()
    (tmp_path / "birds-net-003").touch()
    names = [claim_next("birds", "net", root=tmp_path).path.name for _ in range(2)]
    assert names == ["birds-net-002", "birds-net-004"]


def test_runs_that_begin_at_one_moment_have_a_folder_each(tmp_path: Path) -> None:
    def claimed(_: int) -> Path:
        return claim_next("birds", "net", root=tmp_path).path

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(claimed, range(40)))) == 40


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name in ("events.jsonl", "recipe.yaml", "model/finetune.json", ".0123456789ab.csv"):
        (tmp_path / name).write_text("old")
    return tmp_path


def test_folder_with_files_of_a_run_is_kept_unless_asked(earlier: Path) -> None:
    with pytest.raises(FinetuneError, match="exists and is not empty") as caught:
        claim(earlier)
    assert caught.value.hint == "choose another --out, or add --overwrite"
    assert (earlier / "recipe.yaml").read_text() == "old"


def test_overwrite_empties_the_folder_of_a_run(earlier: Path) -> None:
    claim(earlier, overwrite=True)
    assert list(earlier.iterdir()) == []


def test_overwrite_never_deletes_what_no_run_made(earlier: Path) -> None:
    (earlier / "thesis.doc").write_text("mine")
    (earlier / "photos" / "cat").mkdir(parents=True)
    claim(earlier, overwrite=True)
    assert sorted(path.name for path in earlier.iterdir()) == ["photos", "thesis.doc"]
    assert (earlier / "photos" / "cat").is_dir()


@pytest.mark.parametrize("name", ["thesis.doc", "recipe.yaml", "metrics.json"])
def test_folder_without_the_events_of_a_run_is_nobodys_to_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(FinetuneError, match="holds files but no run"):
        claim(tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == "mine"


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


@pytest.mark.parametrize("name", ["thesis.doc", ".gitkeep"])
def test_files_of_others_may_stand_beside_a_run_that_begins(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    claim(tmp_path, overwrite=True, beside=True)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["recipe.yaml", "model/notes.txt"])
def test_files_of_others_that_a_run_would_replace_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(FinetuneError, match="holds files but no run"):
        claim(tmp_path, overwrite=True, beside=True)
    assert (tmp_path / name).read_text() == "mine"
