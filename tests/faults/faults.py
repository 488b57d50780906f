"""What can go wrong in the middle of a run, done to real runs.

Each fault is a function that starts a run, does its harm, and gives what the run said and its exit
code. The run is then resumed, and must end as one that nobody touched.
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from kills import Process, finish, is_same, start

__all__ = ["FAULTS", "Fault", "Harmed", "survive"]

PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Harmed:
    """What a run did about its fault.

    Attributes:
        exit_code: Of the process.
        said: On standard error.
        is_same: Whether the resumed run ended as the one that nobody touched.
    """

    exit_code: int
    said: str
    is_same: bool


Fault = Callable[[Path, Process], None]  # does harm to a run whose last stage is under way


def terminated(run: Path, process: Process) -> None:
    """A scheduler ends the job."""
    process.send_signal(signal.SIGTERM)


def interrupted(run: Path, process: Process) -> None:
    """A person presses Ctrl-C: the terminal tells every process of the group."""
    os.killpg(process.pid, signal.SIGINT)


def worker_killed(run: Path, process: Process) -> None:
    """The system kills a process that decodes, for lack of memory."""
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    workers[0].kill()


def photo_deleted(run: Path, process: Process) -> None:
    """Somebody removes a photo that the run still needs."""
    for photo in photos(run):
        photo.rename(photo.with_suffix(".gone"))


def photo_cut_short(run: Path, process: Process) -> None:
    """A photo is overwritten by half of it."""
    for photo in photos(run):
        content = photo.read_bytes()
        photo.with_suffix(".gone").write_bytes(content)
        photo.write_bytes(content[: len(content) // 2])


FAULTS: dict[str, tuple[Fault, int, str]] = {
    "SIGTERM": (terminated, 130, "can go on"),
    "SIGINT": (interrupted, 130, "can go on"),
    "a worker killed": (worker_killed, 1, "a process that decodes images was killed"),
    "a photo deleted": (photo_deleted, 3, "can no longer be read"),
    "a photo cut short": (photo_cut_short, 3, "can no longer be read"),
}


def survive(work: Path, name: str, fault: Fault) -> Harmed:
    """Do harm to a run in its last stage, mend what was broken, and resume it."""
    run = work / name
    process = start(work, name)
    wait_until(lambda: is_in_last_stage(run), process)
    fault(run, process)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    for photo in (work / "photos").rglob("*.gone"):
        photo.rename(photo.with_suffix(".png"))
    finish(work, name, "--resume")
    return Harmed(process.returncode, errors.decode(), is_same(run, work / "whole"))


def wait_until(is_time: Callable[[], bool], process: Process) -> None:
    """Wait for a moment that must come while the process runs."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_time():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            _, errors = process.communicate()
            raise RuntimeError(f"the run ended too early: {errors.decode()}")
        time.sleep(0.001)


def is_in_last_stage(run: Path) -> bool:
    """Whether the first epoch of the last stage is over, and a checkpoint was written since."""
    events = run / "events.jsonl"
    text = events.read_text() if events.is_file() else ""
    _, found, rest = text.partition('"stage": "full", "solver"')
    return bool(found) and "EpochEnded" in rest and any(run.glob("checkpoints/[0-9]*"))


def photos(run: Path) -> list[Path]:
    """List the photos that a run trains on."""
    lines = (run / "split.csv").read_text().splitlines()[1:]
    return [
        run.parent / "photos" / line.split(",")[0]
        for line in lines
        if line.split(",")[2] == "train"
    ]
