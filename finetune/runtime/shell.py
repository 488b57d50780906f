"""Commands as a person can type them into the shell of their system."""

import shlex
import subprocess
import sys

__all__ = ["quote"]


def quote(text: str) -> str:
    """Quote one word of a command; cmd.exe and PowerShell take single quotes otherwise or not.

    >>> quote("runs/photos-net-001")
    'runs/photos-net-001'
    """
    return subprocess.list2cmdline([text]) if sys.platform == "win32" else shlex.quote(text)
