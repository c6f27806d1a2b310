"""Ctrl-C and SIGTERM: the step at hand is finished and saved, then everything leaves with one clear line.

A sweep is stopped through a file, which its arms look for at each step: they may run in other processes, which a
signal to the first one never reaches.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved everything."""


class Stop:
    """Whether a run, or the sweep that it belongs to, has been asked to stop."""

    def __init__(self, file: Path | None = None) -> None:
        """`file`: where a sweep notes that it was asked to."""
        self.file = file
        self.asked = False

    @property
    def requested(self) -> bool:
        """True from the first signal on."""
        return self.asked or (self.file is not None and self.file.exists())

    def handle(self, number: int, frame: object) -> None:
        """Signal handler: the first one asks, the second stops at once."""
        if self.asked:  # the file may be there already: one Ctrl-C reaches every process of a terminal
            raise KeyboardInterrupt
        self.asked = True
        if self.file is not None:
            self.file.touch()
        log.info("%s: stopping after this step; once more to stop at once", signal.Signals(number).name)


def listen(stop: Stop) -> dict[int, Any]:
    """Makes `stop` hear SIGINT and SIGTERM; returns the handlers it takes the place of."""
    return {number: signal.signal(number, stop.handle) for number in (signal.SIGINT, signal.SIGTERM)}


@contextmanager
def stop_on_signals(file: Path | None = None) -> Iterator[Stop]:
    """A `Stop` that listens to SIGINT and SIGTERM while open; off the main thread only its file stops it."""
    stop = Stop(file)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = listen(stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
