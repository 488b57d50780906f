"""What can go wrong in the middle of a run, done to real runs.

    python tests/faults/faults.py --times 3 --out docs/benchmarks/faults.json

A run in its last stage, or one that was started on a broken machine, meets its fault. It must say
what is wrong in a sentence, and end with the exit code of such an error. What was broken is mended,
the run is resumed, and must end as one that nobody touched, bit for bit. Some faults a run gets
over by itself; then it must say so.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import kills
import psutil
import record
from kills import FINETUNE, Process, finish, is_same, start

__all__ = ["FAULTS", "Fault", "Harmed", "can_mount", "survive"]

PATIENCE_SECONDS = 300.0
DISK_MIB = 2048  # of the small disk: a run asks for a GiB before it begins
BROKEN = Path(__file__).parent / "broken.py"
# A machine whose processes can share next to no memory; what a worker decodes does not fit.
WITHOUT_SHARED_MEMORY = (
    *("unshare", "--mount", "sh", "-c"),
    'mount -t tmpfs -o size=16k tmpfs /dev/shm && exec "$@"',
    "sh",
)


@dataclass(frozen=True)
class Harmed:
    """What a run did about its fault.

    Attributes:
        exit_code: Of the process.
        said: On standard error.
        is_whole: Whether the resumed run ended as the one that nobody touched; of a run that got
            over its fault, whether it ended with a model.
    """

    exit_code: int
    said: str
    is_whole: bool


def nothing(run: Path, process: Process) -> None:
    """Do no harm: the machine is broken from the start."""


def untouched(run: Path) -> None:
    """Mend nothing: only the run was harmed."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        sentence: Part of what the run must say.
        exit_code: With which it must end.
        harm: Done to a run whose last stage is under way.
        mend: What a person does before they resume it.
        launcher: What starts the run.
        on_small_disk: Whether the run writes to a disk of its own.
    """

    sentence: str
    exit_code: int = 1
    harm: Callable[[Path, Process], None] = nothing
    mend: Callable[[Path], None] = untouched
    launcher: tuple[str, ...] = FINETUNE
    on_small_disk: bool = False


def terminate(run: Path, process: Process) -> None:
    """A scheduler ends the job."""
    process.send_signal(signal.SIGTERM)


def interrupt(run: Path, process: Process) -> None:
    """A person presses Ctrl-C: the terminal tells every process of the group."""
    os.killpg(process.pid, signal.SIGINT)


def kill_worker(run: Path, process: Process) -> None:
    """The system kills a process that decodes, for lack of memory."""
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "resource_tracker" not in " ".join(child.cmdline())
    ]
    workers[0].kill()


def remove_photos(run: Path, process: Process) -> None:
    """Somebody removes photos that the run still needs."""
    for photo in photos(run):
        photo.rename(photo.with_suffix(".gone"))


def swap_photos(run: Path, process: Process) -> None:
    """Each photo is overwritten by another one, which can be read as well."""
    contents = [photo.read_bytes() for photo in photos(run)]
    for photo, own, other in zip(photos(run), contents, [*contents[1:], contents[0]], strict=True):
        photo.with_suffix(".gone").write_bytes(own)
        photo.write_bytes(other)


def cut_photos(run: Path, process: Process) -> None:
    """Photos are overwritten by half of them."""
    for photo in photos(run):
        content = photo.read_bytes()
        photo.with_suffix(".gone").write_bytes(content)
        photo.write_bytes(content[: len(content) // 2])


def put_back(run: Path) -> None:
    """Give the photos back."""
    for photo in (run.parent / "photos").rglob("*.gone"):
        photo.rename(photo.with_suffix(".png"))


def fill_disk(run: Path, process: Process) -> None:
    """Another program writes until the disk is full."""
    with (run.parent / "filler").open("wb") as stream:
        free = shutil.disk_usage(run.parent).free
        while free > 0:
            try:
                os.posix_fallocate(stream.fileno(), stream.seek(0, os.SEEK_END), free)
            except OSError:
                free //= 2  # the run has written in the meantime
            else:
                free = shutil.disk_usage(run.parent).free


def free_disk(run: Path) -> None:
    """Remove what filled the disk."""
    (run.parent / "filler").unlink()


def forbid_writing(run: Path, process: Process) -> None:
    """The system turns a disk with faults read-only, at a moment when no file is being written."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while subprocess.run(_remount("ro", run), capture_output=True, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the disk was never at rest")


def allow_writing(run: Path) -> None:
    """Mount it as it was."""
    subprocess.run(_remount("rw", run), check=True)


def _remount(mode: str, run: Path) -> list[str]:
    """Give the command that mounts the disk of a run otherwise."""
    return ["mount", "-o", f"remount,{mode}", str(run.parent)]


FAULTS: dict[str, Fault] = {
    "SIGTERM": Fault("can go on", 130, terminate),
    "SIGINT": Fault("can go on", 130, interrupt),
    "a worker killed": Fault("a process that decodes images was killed", harm=kill_worker),
    "a photo deleted": Fault("can no longer be read", 3, remove_photos, put_back),
    "a photo cut short": Fault("can no longer be read", 3, cut_photos, put_back),
    "a photo overwritten": Fault("has changed since the run began", 3, swap_photos, put_back),
    "a full disk": Fault("the disk is full", harm=fill_disk, mend=free_disk, on_small_disk=True),
    "a read-only disk": Fault(
        "Read-only file system", harm=forbid_writing, mend=allow_writing, on_small_disk=True
    ),
    "no shared memory": Fault("/dev/shm", launcher=(*WITHOUT_SHARED_MEMORY, *FINETUNE)),
    "a loss that is no number": Fault(
        "the loss is nan in stage 'full', epoch",
        5,
        launcher=(sys.executable, str(BROKEN), "loss"),
    ),
    "no memory for a batch": Fault(
        "pieces, and steps as before", 0, launcher=(sys.executable, str(BROKEN), "memory")
    ),
}


def main() -> int:
    """Do every fault so many times, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        kills.make_whole(work)
        rows = [row_of(work, name, given.times) for name in FAULTS]
    document = {
        "title": "Faults in the middle of a run",
        "command": f"python tests/faults/faults.py --times {given.times}",
        "commit": record.commit(),
        "device": record.device(),
        "notes": [
            "survived: the fault is named in a sentence, and the resumed run ends as one that "
            "nobody touched, bit for bit; an exit code of 0: the run got over it by itself"
        ],
        "rows": rows,
    }
    text = json.dumps(document, indent=1) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 1 if any(row["lost"] for row in rows) else 0


def row_of(work: Path, name: str, times: int) -> dict[str, object]:
    """Do a fault so many times, and count."""
    fault = FAULTS[name]
    survived = 0
    for number in range(times):
        harmed = survive(work, name, folder=f"{name.replace(' ', '-')}-{number}")
        is_named = harmed.exit_code == fault.exit_code and fault.sentence in harmed.said
        survived += is_named and harmed.is_whole
        print(name, harmed, file=sys.stderr, flush=True)
    return {
        "fault": name,
        "says": fault.sentence,
        "exit_code": fault.exit_code,
        "tried": times,
        "survived": survived,
        "lost": times - survived,
    }


def survive(work: Path, name: str, *, folder: str) -> Harmed:
    """Let a run meet its fault, mend what was broken, and resume it."""
    fault = FAULTS[name]
    run = work / folder
    if fault.on_small_disk:
        mount(run)
        run /= "run"
    try:
        process = start(work, run, launcher=fault.launcher)
        if fault.harm is not nothing:
            wait_until(lambda: is_in_last_stage(run), process)
            fault.harm(run, process)
        _, errors = process.communicate(timeout=PATIENCE_SECONDS)
        fault.mend(run)
        if fault.exit_code == 0:
            is_whole = (run / "model/model.safetensors").is_file()
        else:
            finish(work, run, "--resume")
            is_whole = is_same(run, work / "whole")
    finally:
        if fault.on_small_disk:
            subprocess.run(["umount", str(run.parent)], check=True)
    return Harmed(process.returncode, errors.decode(), is_whole)


def mount(folder: Path) -> None:
    """Put a small disk at a folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(folder)]
    subprocess.run(command, check=True)


def can_mount() -> bool:
    """Whether this process may mount disks, as some faults need."""
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=16k tmpfs /dev/shm"]
    return (
        shutil.which(command[0]) is not None
        and not subprocess.run(command, capture_output=True, check=False).returncode
    )


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


if __name__ == "__main__":
    sys.exit(main())
