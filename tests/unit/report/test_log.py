"""The log of a run, where its history cannot be written."""

import json
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.report.log import RunLog
from finetune.runtime.folder import RunFolder
from finetune.train.events import EpochEnded, Event, RunEnded, RunStarted, Warned

EPOCH = EpochEnded("full", 1, 10, 0.5, 0.4, 0.9, 0.9, 1e-3, 20.0, 3.0, is_best=True)


def test_who_looks_at_the_history_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    log, write = RunLog(told.append), RunFolder.write_text

    def refuse(folder: RunFolder, name: str, text: str) -> None:  # as Windows while Excel reads it
        raise FinetuneError(f"cannot write {name}: Permission denied") from PermissionError()

    monkeypatch.setattr(RunFolder, "write_text", refuse)
    log.open(RunFolder(tmp_path))
    log(RunStarted("run", "net", "photos"))
    log(EPOCH)
    log(EPOCH)
    monkeypatch.setattr(RunFolder, "write_text", write)
    log(RunEnded("run", "model", "stage full", 9.0))
    warned = [event.message for event in told if isinstance(event, Warned)]
    assert warned == ["cannot write history.csv: Permission denied; events.jsonl has its rows"]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    kinds = [json.loads(line)["event"] for line in lines]
    assert kinds == ["Warned", "RunStarted", "EpochEnded", "EpochEnded", "RunEnded"]


def test_a_full_disk_does_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: RunFolder, name: str, text: str) -> None:
        raise FinetuneError(f"cannot write {name}: the disk is full") from OSError()

    log = RunLog()
    log.open(RunFolder(tmp_path))
    monkeypatch.setattr(RunFolder, "write_text", refuse)
    with pytest.raises(FinetuneError, match="the disk is full"):
        log(EPOCH)
