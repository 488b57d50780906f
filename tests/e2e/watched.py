"""`finetune` on a machine without a network, where every attempt to use one is written down.

    python tests/e2e/watched.py LOG run …

It counts what Python code attempts, in this process and in those that it forks.
"""

import socket
import sys
from pathlib import Path

_ATTEMPTS = frozenset(
    (
        *("socket.connect", "socket.sendto", "socket.sendmsg"),
        *("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"),
    )
)


def watch(log: Path) -> None:
    """Refuse every attempt but those within this machine, and note what it wanted."""

    def refuse(event: str, arguments: tuple[object, ...]) -> None:
        if event not in _ATTEMPTS:
            return
        first, *others = arguments
        if isinstance(first, socket.socket) and first.family == socket.AF_UNIX:
            return
        wanted = others if isinstance(first, socket.socket) else arguments
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"{event} {wanted[0]}\n")
        raise OSError("this machine has no network")

    sys.addaudithook(refuse)


if __name__ == "__main__":
    watch(Path(sys.argv.pop(1)))
    from finetune.cli.app import main

    sys.exit(main())
