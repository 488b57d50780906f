"""Commands as a person can type them into the shell of their system."""

import shlex
import subprocess
import sys

__all__ = ["quote"]


def quote(text: str) -> str:
    """Quote one word of a command where it needs it; cmd.exe knows no single quotes.

    >>> quote("runs/photos-net-001")
    'runs/photos-net-001'
    """
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)
