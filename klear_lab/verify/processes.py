"""Verifiers that may hang, crash or eat all memory, in processes with a hard time limit.

Every verifier is tried out on answers whose verdict is known, before anything is trained: one that is installed
badly would call every answer wrong, and RL would learn from that.
"""

import importlib
import logging
import multiprocessing
import resource
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from klear_lab.config import VerifierUnavailable

log = logging.getLogger(__name__)

MEMORY_BYTES = 4 << 30  # address space of a worker
START_SECONDS = 120.0
STOP_SECONDS = 30.0
LOOK_SECONDS = 1.0  # between looks at whether the processes still live
ANSWERS_PER_WORKER = 2000  # then it is replaced: sympy's caches grow

V = TypeVar("V")


@dataclass(frozen=True)
class Judge(Generic[V]):
    """A function that judges answers of one kind, and how to tell whether it works."""

    name: str
    verdict: Callable[[str, str], V]  # on an answer and a ground truth; a function that processes can import
    unparsable: V  # the verdict on an answer that it raises an error for, or takes too long for
    known: Mapping[tuple[str, str], V]  # what it must find if it works
    modules: Sequence[str]  # that it needs, imported before any time is kept
    remedy: str  # what to try where it doesn't work


def prepare_worker(modules: Sequence[str]) -> None:
    """Imports what the judge needs and limits memory, in each worker before its first answer."""
    for name in modules:
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.WARNING)  # math-verify warns at each call that we keep the time ourselves


class VerifierProcesses(Generic[V]):
    """Runs a judge in `workers` processes; use as a context manager."""

    def __init__(self, judge: Judge[V], workers: int, seconds: float = 10.0) -> None:
        """An answer that takes longer than `seconds` is unparsable. Raises `VerifierUnavailable`."""
        self.judge_of_one, self.seconds = judge, seconds
        context = multiprocessing.get_context("forkserver")
        # loky: inside launcher=joblib the workers are asked to know its start method.
        context.set_forkserver_preload([*judge.modules, "joblib.externals.loky"])
        self.pool = ProcessPool(
            max_workers=workers,
            max_tasks=ANSWERS_PER_WORKER,
            initializer=prepare_worker,
            initargs=[judge.modules],
            context=context,
        )
        try:
            self.check_itself()
        except VerifierUnavailable:
            self.__exit__()
            raise

    def __enter__(self) -> "VerifierProcesses[V]":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the processes, whatever they are at; gives up on a pool that doesn't end."""
        self.pool.stop()
        ending = threading.Thread(target=self.pool.join, name="end of verifiers", daemon=True)
        ending.start()
        ending.join(STOP_SECONDS)
        if ending.is_alive():
            log.warning("%s: its processes don't end; going on without them", self.judge_of_one.name)

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[V]:
        """Returns the verdict on each (answer, ground truth), in order; the same pair is judged once.

        A worker's death costs one retry; after a second one the answer is unparsable, or, where an answer whose
        verdict is known fails too, `VerifierUnavailable` is raised. So it is where the processes break, or no
        verdict comes in the time that an answer before it, the answer itself and a new process may take.
        """
        futures = {pair: self.submit(pair, self.seconds) for pair in dict.fromkeys(pairs)}
        verdicts = {pair: self.result(pair, future) for pair, future in futures.items()}
        return [verdicts[pair] for pair in pairs]

    def submit(self, pair: tuple[str, str], seconds: float) -> ProcessFuture[V]:
        """Starts to judge one pair. Raises `VerifierUnavailable` where the processes have broken."""
        try:
            return self.pool.schedule(self.judge_of_one.verdict, args=pair, timeout=seconds)
        except RuntimeError as error:
            raise self.broken(error) from error

    def result(self, pair: tuple[str, str], future: ProcessFuture[V]) -> V:
        """Returns the verdict on a pair, after one retry where its worker died."""
        try:
            return self.attempt(future)
        except ProcessExpired:
            try:
                return self.attempt(self.submit(pair, self.seconds))
            except ProcessExpired:
                self.check_itself()
                return self.judge_of_one.unparsable

    def attempt(self, future: ProcessFuture[V]) -> V:
        """Returns the verdict; an answer that makes the judge raise an error is unparsable."""
        try:
            return self.wait_for(future, 2 * self.seconds + START_SECONDS)
        except (ProcessExpired, VerifierUnavailable):
            raise
        except Exception as error:
            log.debug("unparsable: %r", error)
            return self.judge_of_one.unparsable

    def wait_for(self, future: ProcessFuture[V], seconds: float) -> V:
        """Returns a future's result. Raises `VerifierUnavailable` where the processes break or `seconds` pass.

        A pool that breaks between taking a task and handing it on leaves its future open for good, so that it has
        to be looked at too.
        """
        deadline = time.monotonic() + seconds
        while not wait([future], LOOK_SECONDS).done:
            if not self.pool.active:
                raise self.broken(None)
            if time.monotonic() > deadline:
                raise VerifierUnavailable(
                    f"{self.judge_of_one.name}: no verdict in {seconds:.0f} s, though an answer has only "
                    f"{self.seconds:g}; its processes hang. The same command goes on from the last checkpoint"
                )
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise self.broken(error) from error

    def broken(self, error: Exception | None) -> VerifierUnavailable:
        """Makes the error for processes that have broken."""
        why = f" ({error})" if error else ""
        return VerifierUnavailable(
            f"{self.judge_of_one.name}: the processes that verify answers die{why}; its installation is broken or "
            f"the memory used up; try {self.judge_of_one.remedy}"
        )

    def check_itself(self) -> None:
        """Raises `VerifierUnavailable` where the judge doesn't tell right from wrong, whatever the reason."""
        judge = self.judge_of_one
        for pair, verdict in judge.known.items():
            found: object
            try:
                found = self.wait_for(self.submit(pair, START_SECONDS), 2 * START_SECONDS)
            except VerifierUnavailable:
                raise
            except Exception as error:
                found = repr(error)
            if found != verdict:
                raise VerifierUnavailable(
                    f"{judge.name} finds {pair[0]} {found} where {pair[1]} is right: its installation is broken; "
                    f"try {judge.remedy}"
                )
