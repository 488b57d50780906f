"""What every record of figures says of its circumstances: commit, machine, versions."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

__all__ = ["commit", "device", "versions"]


def commit() -> str:
    """Name the commit that is measured; what is not committed makes it dirty."""
    command = ["git", "describe", "--always", "--dirty"]
    root = Path(__file__).resolve().parents[2]
    asked = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return asked.stdout.strip() or "unknown"


def device() -> str:
    """Name the machine, as far as figures depend on it."""
    return f"{os.cpu_count()} cores, {platform.machine()}, no GPU"


def versions(*names: str) -> dict[str, str]:
    """Give the versions of distributions by their names."""
    return {name: version(name) for name in names}
