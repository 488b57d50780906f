"""Interruptions that wait."""

import signal
import threading
from collections.abc import Iterator

import pytest

from finetune.runtime.interrupts import interrupts_deferred


@pytest.fixture(autouse=True)
def _answers_ctrl_c() -> Iterator[None]:
    """Answer Ctrl-C, which what a shell runs in its background is made to ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_by(*numbers: signal.Signals, error: Exception | None = None) -> list[bool]:
    """Raise signals in a deferring block; tell after each whether the block went on."""
    seen: list[bool] = []

    def work() -> None:
        with interrupts_deferred() as request:
            for number in numbers:
                signal.raise_signal(number)
                seen.append(request.is_made)
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt if error is None else type(error)):
        work()
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_interrupts_at_the_end(number: signal.Signals) -> None:
    assert interrupted_by(number) == [True]


def test_the_second_signal_interrupts_at_once() -> None:
    assert interrupted_by(signal.SIGINT, signal.SIGINT) == [True]


def test_handlers_are_as_they_were_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interrupts_deferred():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_deferred() as request:
            signal.raise_signal(signal.SIGINT)
        assert not request.is_made
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_in_the_block_goes_before_the_interruption() -> None:
    assert interrupted_by(signal.SIGINT, error=ValueError("first")) == [True]


def test_another_thread_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with interrupts_deferred() as request:
            seen.extend((request.is_made, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False, before]
