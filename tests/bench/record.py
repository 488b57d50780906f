"""What every record of figures says of its circumstances: commit, machine, versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

__all__ = ["commit", "device", "instructions", "versions"]

_SETS = {"amx_bf16": "AMX", "avx512f": "AVX-512", "avx2": "AVX2", "sve": "SVE", "asimd": "NEON"}


def commit() -> str:
    """Name the commit that is measured; what is not committed makes it dirty."""
    command = ["git", "describe", "--always", "--dirty"]
    root = Path(__file__).resolve().parents[2]
    asked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def device() -> str:
    """Name the machine, as far as figures depend on it."""
    return f"{os.cpu_count()} cores, {platform.machine()}, no GPU"


def instructions() -> str | None:
    """Name the widest instructions of the processor, where the system tells them."""
    file = Path("/proc/cpuinfo")
    words = set(file.read_text().split()) if file.is_file() else set()
    return next((name for flag, name in _SETS.items() if flag in words), None)


def versions(*names: str) -> dict[str, str]:
    """Give the versions of distributions by their names."""
    return {name: version(name) for name in names}
