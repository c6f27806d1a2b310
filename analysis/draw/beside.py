"""Draws in processes beside this one: drawing is most of a report's time, and no figure needs another."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from klear_lab.sandbox.system_calls import die_with_parent

Start = Callable[..., Callable[[], Any]]
MOST = 8  # processes


@contextmanager
def beside() -> Iterator[Start]:
    """Yields `start(function, *arguments)`, which returns a call that waits for the result and returns it.

    Functions, arguments and results are pickled. Where there is one core, or no safe way to fork this process with
    all that it has imported, the returned call does the work itself. What the function raises is raised there.
    """
    cores = min(MOST, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 1
    if cores == 1:
        yield partial
        return
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(cores, forked, prepare, (os.getpid(),)) as pool:
        try:
            yield lambda function, *arguments: pool.submit(function, *arguments).result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def prepare(parent: int) -> None:
    """Ties a new process to its parent: a killed one leaves none behind, and Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    if os.getppid() != parent:  # killed before
        os._exit(1)
