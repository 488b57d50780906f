"""A sample of the faults that `make faults` does to runs: each is named, and nothing is lost."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import faults
import kills

pytestmark = pytest.mark.slow  # each starts several processes that train

# One of each kind; `make faults` does all.
SAMPLE = (
    *("SIGTERM", "a worker killed", "a photo overwritten", "a full disk"),
    "no memory for a batch",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a recipe and the run that nobody touches."""
    folder = tmp_path_factory.mktemp("faults")
    kills.make_whole(folder)
    return folder


@pytest.mark.parametrize("name", SAMPLE)
def test_a_fault_is_named_and_the_resumed_run_is_the_same(work: Path, name: str) -> None:
    fault = faults.FAULTS[name]
    if (fault.on_small_disk or "unshare" in fault.launcher) and not faults.can_mount():
        pytest.skip("needs the right to mount a disk")
    harmed = faults.survive(work, name, folder=name.replace(" ", "-"))
    assert harmed.exit_code == fault.exit_code, harmed.said
    assert fault.sentence in harmed.said
    assert "Traceback" not in harmed.said
    assert harmed.is_whole


def test_runs_killed_at_random_moments_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    outcomes = kills.kill_often(tmp_path, 2, seed=1)
    assert len(outcomes) == 2
    assert all(outcome.is_same for outcome in outcomes), outcomes
