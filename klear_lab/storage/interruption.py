"""Ctrl-C and SIGTERM: the step at hand is finished and saved, then everything leaves with one clear line.

A sweep is stopped through a file, which its arms look for at each step: they may run in other processes, which a
signal to the first one never reaches.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from joblib.externals.loky.backend import resource_tracker as loky_resource_tracker

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved everything."""


class Stop:
    """Knows whether a run, or the sweep that it belongs to, has been asked to stop."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` exists once the whole sweep has been asked to stop."""
        self.file = file
        self.asked = False

    @property
    def requested(self) -> bool:
        """Becomes true with the first signal."""
        return self.asked or (self.file is not None and self.file.exists())

    def handle(self, number: int, frame: object) -> None:
        """Handles a signal: the first one asks the run to stop, the second stops it at once."""
        if self.asked:  # the file may be there already: one Ctrl-C reaches every process of a terminal
            raise KeyboardInterrupt
        self.asked = True
        if self.file is not None:
            self.file.touch()
        log.info("%s: stopping after this step; once more to stop at once", signal.Signals(number).name)


def listen(stop: Stop) -> dict[int, Any]:
    """Makes `stop` handle SIGINT and SIGTERM; returns the handlers that it replaces."""
    return {number: signal.signal(number, stop.handle) for number in SIGNALS}


def hold_signals_of_workers() -> None:
    """Lets processes started from now on receive signals only while an arm of theirs runs; this one still does.

    A worker of launcher=joblib that Ctrl-C meets between two arms, or while it still imports, would die of it and
    take the others with it, unsaved. Held back, the signal waits until the worker's arm begins.
    """
    # When these start they open the signals of the thread that needs them; so they start before it closes them.
    resource_tracker.ensure_running()
    loky_resource_tracker.ensure_running()
    # Started with signals open, and the main thread still runs the handlers; what it starts inherits its own mask.
    threading.Thread(target=threading.Event().wait, name="signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Lets processes that are started while it is open never receive Ctrl-C; their parent ends them."""
    # When these start they open the signals of the thread that needs them; so they start before it closes them.
    resource_tracker.ensure_running()
    loky_resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def stop_on_signals(file: Path | None = None) -> Iterator[Stop]:
    """Yields a `Stop` that listens to SIGINT and SIGTERM; off the main thread only its file stops it."""
    stop = Stop(file)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = listen(stop)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield stop
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
