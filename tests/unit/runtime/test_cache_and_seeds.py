"""Seeds follow from what they are for; measured figures are kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from finetune.errors import FinetuneError
from finetune.runtime.cache import cache_folder, remember
from finetune.runtime.device import (
    available_cpus,
    choose_device,
    machine_facts,
    require_one_process,
)
from finetune.runtime.seeds import derive_seed


def test_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(0, "order", 1, 2) == 3080155318942025930


def test_seeds_of_different_parts_differ() -> None:
    seeds = {derive_seed(0, "step", stage, epoch) for stage in range(10) for epoch in range(100)}
    assert len(seeds) == 1000
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_figures_are_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    assert remember("speed", "key", lambda: {"a": 1.5}) == {"a": 1.5}
    assert remember("speed", "key", lambda: {"a": 9.0}) == {"a": 1.5}
    assert remember("speed", "other", lambda: {"a": 9.0}) == {"a": 9.0}


def test_cache_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "file"))
    assert remember("speed", "key", lambda: {"a": 1.0}) == {"a": 1.0}


def test_damaged_cache_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))
    remember("speed", "key", lambda: {"a": 1.0})
    for path in (tmp_path / "speed").iterdir():
        path.write_text("{")
    assert remember("speed", "key", lambda: {"a": 2.0}) == {"a": 2.0}


def test_device_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(FinetuneError, match="device cuda:7 is not there") as caught:
        choose_device("cuda:7")
    assert caught.value.hint == "use --device auto"


def test_every_choice_has_a_reason() -> None:
    facts = machine_facts("cpu")
    assert facts.device == "cpu"
    assert facts.device_reason == "as asked for"
    assert facts.bf16_reason
    assert facts.num_cpus == available_cpus() >= 1


def test_several_processes_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(FinetuneError, match="started in 4 processes") as caught:
        require_one_process()
    assert caught.value.hint == "start it without torchrun or accelerate launch"


def test_one_process_of_a_launcher_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    require_one_process()
    assert available_cpus() >= 1


def test_a_script_without_a_guard_is_refused_in_the_processes_that_import_it(
    tmp_path: Path,
) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import multiprocessing\n"
        "from finetune.runtime.device import require_one_process\n"
        "require_one_process()\n"
        "if __name__ == '__main__':\n"
        "    process = multiprocessing.get_context('spawn').Process(target=print)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    print('ended with', process.exitcode)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "ended with 1\n"
    assert "this script starts a run whenever it is imported" in done.stderr


@pytest.mark.parametrize(("share", "cores"), [(0.5, 1), (1.5, 2), (99.0, 3), (None, 3)])
def test_cores_are_those_of_the_container(
    monkeypatch: pytest.MonkeyPatch, share: float | None, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2}, raising=False)
    monkeypatch.setattr("finetune.runtime.device.cpu_share", lambda: share)
    assert available_cpus() == cores


def test_cores_are_counted_where_the_system_has_no_affinity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert available_cpus() >= 1
