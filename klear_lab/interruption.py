"""Ctrl-C and SIGTERM: the step at hand is finished and saved, then the run leaves with one clear line."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved everything."""


class Stop:
    """Whether a signal has asked the run to stop; a second one stops at once."""

    def __init__(self) -> None:
        """Not asked yet."""
        self.requested = False

    def request(self, number: int, frame: object) -> None:
        """Signal handler."""
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        log.info("%s: stopping after this step; once more to stop at once", signal.Signals(number).name)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A `Stop` that listens to SIGINT and SIGTERM while open; off the main thread it never hears any."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
