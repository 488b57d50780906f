"""Checkpoints: written whole, read back as they were, bounded in cost and disk."""

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.train.checkpoint import Checkpoints, Keeper, has_checkpoint

STATE: dict[str, Any] = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor([True, False])},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 7: {}}, "betas": (0.9, 0.999)},
    "rows": [{"loss": float("nan"), "name": "naïve", "best": None}],
    "half": torch.ones(3, dtype=torch.bfloat16),
    "channels_last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
}


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, warnings: list[str]) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", 0.5, 10**9, warnings.append)


def assert_equal(ours: Any, theirs: Any) -> None:
    """Compare nested values; a NaN equals a NaN."""
    assert type(ours) is type(theirs)
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            assert_equal(value, theirs[key])
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    else:
        assert ours == theirs or ours != ours


def test_a_state_is_read_as_it_was_written(checkpoints: Checkpoints) -> None:
    checkpoints.write(STATE)
    assert_equal(checkpoints.newest(), STATE)


def test_two_are_kept_and_the_newest_is_read(checkpoints: Checkpoints) -> None:
    for number in range(5):
        checkpoints.write({"number": number})
    names = [path.name for path in sorted(checkpoints.folder.iterdir())]
    assert names == ["00000004.safetensors", "00000005.safetensors"]
    assert checkpoints.newest() == {"number": 4}


@pytest.mark.parametrize("place", [0.02, 0.5, 0.99])
def test_a_byte_that_changed_is_found_wherever_it_stands(
    checkpoints: Checkpoints, warnings: list[str], place: float
) -> None:
    checkpoints.write({"number": 1, "values": torch.randn(50)})
    checkpoints.write({"number": 2, "values": torch.randn(50)})
    newest = checkpoints.folder / "00000002.safetensors"
    content = bytearray(newest.read_bytes())
    content[int(len(content) * place)] ^= 4
    newest.write_bytes(content)
    found = checkpoints.newest()
    assert found is not None
    assert found["number"] == 1
    assert warnings == [f"{newest} is damaged; the checkpoint before it is used"]


def test_a_file_cut_short_is_found(checkpoints: Checkpoints) -> None:
    checkpoints.write(STATE)
    only = checkpoints.folder / "00000001.safetensors"
    only.write_bytes(only.read_bytes()[:-7])
    assert checkpoints.newest() is None


def test_what_a_killed_process_was_writing_is_swept_away(checkpoints: Checkpoints) -> None:
    checkpoints.folder.mkdir()
    for name in (".0123456789ab.safetensors", ".tmpA1b2C3"):  # the second is of safetensors
        (checkpoints.folder / name).write_bytes(b"half")
    assert not has_checkpoint(checkpoints.folder)
    checkpoints.write(STATE)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["00000001.safetensors"]


def test_more_than_the_budget_is_said_once_and_not_written(
    tmp_path: Path, warnings: list[str]
) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", 0.5, 100, warnings.append)
    for _ in range(2):
        checkpoints.write({"values": torch.zeros(256)})
    assert not checkpoints.folder.exists()
    assert warnings == [
        "no checkpoint was written: 2 of 1.0 KiB are more than their budget of 100 B; "
        "the run goes on without"
    ]


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    Checkpoints(tmp_path / "checkpoints", 0.5, 10**9, warnings.append).write(STATE)
    assert len(warnings) == 1
    assert "no checkpoint was written" in warnings[0]


def test_a_share_of_nothing_writes_none(tmp_path: Path, warnings: list[str]) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", 0.0, 10**9, warnings.append)
    keeper = Keeper(checkpoints, lambda: STATE)
    keeper.look()
    keeper.save()
    assert not checkpoints.folder.exists()


def test_the_next_is_due_when_the_last_is_paid_for(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    checkpoints._cost_seconds, checkpoints._written_at = 3.0, 0.0
    now = 5.9
    assert not checkpoints.is_due()
    now = 6.0  # half the time is theirs
    assert checkpoints.is_due()


def test_an_interruption_within_the_block_saves_the_state(checkpoints: Checkpoints) -> None:
    keeper = Keeper(checkpoints, lambda: {"number": 9})
    with pytest.raises(KeyboardInterrupt), keeper.interruptions_saved():
        raise KeyboardInterrupt
    assert checkpoints.newest() == {"number": 9}


def test_a_run_that_is_over_leaves_no_folder(checkpoints: Checkpoints) -> None:
    checkpoints.write(STATE)
    checkpoints.remove()
    assert not checkpoints.folder.exists()


def test_a_run_that_is_over_leaves_nothing_that_was_being_written(checkpoints: Checkpoints) -> None:
    checkpoints.write(STATE)
    (checkpoints.folder / ".tmpA1b2C3").write_bytes(b"half")
    checkpoints.remove()
    assert not checkpoints.folder.exists()


def test_one_that_is_whole_is_enough_to_go_on(checkpoints: Checkpoints) -> None:
    for _ in range(2):
        checkpoints.write(STATE)
    first, second = sorted(checkpoints.folder.iterdir())
    second.write_bytes(b"junk")
    assert has_checkpoint(checkpoints.folder)
    first.write_bytes(b"junk")
    assert not has_checkpoint(checkpoints.folder)


def test_what_somebody_else_put_beside_them_stays(checkpoints: Checkpoints) -> None:
    checkpoints.write(STATE)
    (checkpoints.folder / ".DS_Store").write_text("")
    checkpoints.remove()
    assert [path.name for path in checkpoints.folder.iterdir()] == [".DS_Store"]
    (checkpoints.folder / ".DS_Store").unlink()
    checkpoints.remove()
    assert not checkpoints.folder.exists()
    checkpoints.remove()
