"""Run one process to its end and measure all of it: seconds, processor seconds, peak memory.

Memory is that of the whole tree of processes at one moment, pages that several share counted once
(PSS on Linux, resident pages elsewhere), looked at four times a second at most. Pages of mapped
files count in it, though the system takes them back when it needs memory; Linux tells what there
is beside them.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Failed", "Usage", "run_watched"]

INTERVAL_SECONDS = 0.25
# Of one core, so that what measures does not slow what is measured, and one of many processes no
# more than a bare loop: a look takes some milliseconds a process.
LARGEST_SHARE = 0.02


class Failed(RuntimeError):
    """The process ended with an error; the message is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process cost, and what it printed.

    Attributes:
        wall_seconds: From its start to its end.
        cpu_seconds: User and system time of it and of all processes that it waited for.
        peak_memory_mib: Largest memory of its tree at one moment.
        peak_own_mib: The same without pages of mapped files; None where the system does not tell.
        output: Its standard output.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_memory_mib: int
    peak_own_mib: int | None
    output: str


def run_watched(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Usage:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        environment: Its whole environment.
        folder: Where its output is written.

    Raises:
        Failed: It ended with another code than 0.
    """
    said, errors = folder / "stdout.txt", folder / "stderr.txt"
    with said.open("wb") as out, errors.open("wb") as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=dict(environment))
        memory = _Memory(process.pid)
        memory.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        memory.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = "\n".join(errors.read_text(errors="replace").splitlines()[-15:])
        raise Failed(f"exit code {process.returncode}: {' '.join(command)}\n{tail}")
    return Usage(
        wall_seconds=round(wall, 4),
        cpu_seconds=round(usage.ru_utime + usage.ru_stime, 3),
        peak_memory_mib=memory.peak_bytes // 2**20,
        peak_own_mib=memory.peak_own_bytes // 2**20 or None,
        output=said.read_text(errors="replace"),
    )


class _Memory(threading.Thread):
    """Looks at the memory of a tree of processes until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.peak_own_bytes = 0
        self._root = psutil.Process(pid)
        self._over = threading.Event()

    def run(self) -> None:
        cost = 0.0
        while not self._over.wait(max(INTERVAL_SECONDS, cost / LARGEST_SHARE)):
            started = time.perf_counter()
            whole, own = self._look()
            self.peak_bytes = max(self.peak_bytes, whole)
            self.peak_own_bytes = max(self.peak_own_bytes, own)
            cost = time.perf_counter() - started

    def stop(self) -> None:
        """End, and wait for it."""
        self._over.set()
        self.join()

    def _look(self) -> tuple[int, int]:
        """Sum the memory of all processes that there are now, with and without mapped files."""
        whole = own = 0
        with contextlib.suppress(psutil.Error):
            for process in [self._root, *self._root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error, OSError):
                    found = _bytes_of(process)
                    whole, own = whole + found[0], own + found[1]
        return whole, own


def _bytes_of(process: psutil.Process) -> tuple[int, int]:
    """Give the memory of one process, its share of what it shares; 0 for what is not told."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    if not rollup.exists():
        return int(process.memory_info().rss), 0
    kib = {
        name: int(words[0])
        for name, *words in map(str.split, rollup.read_text(encoding="ascii").splitlines()[1:])
    }
    return kib["Pss:"] << 10, kib["Pss:"] - kib["Pss_File:"] << 10 if "Pss_File:" in kib else 0
