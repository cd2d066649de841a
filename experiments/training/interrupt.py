"""Ctrl-C at a moment that suits."""

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A run was stopped from outside; what it says is how to go on."""


class Stop:
    """Whether somebody asked for the end."""

    requested = False


@contextlib.contextmanager
def held_back() -> Iterator[Stop]:
    """Notes the first Ctrl-C, or SIGTERM, instead of raising anything; a second is no longer held back."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # where no signal arrives
        yield stop
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame) -> None:
        stop.requested = True
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
