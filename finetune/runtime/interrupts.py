"""Interruptions that wait for a good moment: Ctrl-C and SIGTERM after a step, not within it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["StopRequest", "interrupts_deferred"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class StopRequest:
    """Whether somebody asked to stop.

    Attributes:
        is_made: Set by the first signal.
    """

    is_made: bool = False


@contextmanager
def interrupts_deferred() -> Iterator[StopRequest]:
    """Let the first SIGINT or SIGTERM only be noted, for a `with` block.

    A second one interrupts at once; one that nobody has answered interrupts where the block ends.
    Signals reach the main thread alone: in another thread nothing changes.

    Raises:
        KeyboardInterrupt: As said.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.is_made:
            raise KeyboardInterrupt
        request.is_made = True

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as a shell has it for what runs in its background
            signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if request.is_made:
        raise KeyboardInterrupt
