"""Verifiers that may hang, crash or eat all memory, in processes with a hard time limit.

Every verifier is tried out on answers whose verdict is known, before anything is trained: one that is installed
badly would call every answer wrong, and RL would learn from that.
"""

import importlib
import logging
import multiprocessing
import resource
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Generic, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool

from klear_lab.config import VerifierUnavailable

log = logging.getLogger(__name__)

MEMORY_BYTES = 4 << 30  # address space of a worker
START_SECONDS = 120.0
ANSWERS_PER_WORKER = 2000  # then it is replaced: sympy's caches grow

V = TypeVar("V")


@dataclass(frozen=True)
class Judge(Generic[V]):
    """How answers of one kind are judged."""

    name: str
    verdict: Callable[[str, str], V]  # on an answer and a ground truth; a function that processes can import
    unparsable: V  # the verdict on an answer that it raises an error for, or takes too long for
    known: Mapping[tuple[str, str], V]  # what it must find if it works
    modules: Sequence[str]  # that it needs, imported before any time is kept
    remedy: str  # what to try where it doesn't work


def prepare_worker(modules: Sequence[str]) -> None:
    """Runs in each worker before its first answer."""
    for name in modules:
        importlib.import_module(name)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    logging.disable(logging.WARNING)  # math-verify warns at each call that we keep the time ourselves


class VerifierProcesses(Generic[V]):
    """A judge in `workers` processes; use as a context manager."""

    def __init__(self, judge: Judge[V], workers: int, seconds: float = 10.0) -> None:
        """`seconds`: for each answer; one that takes longer is unparsable. Raises `VerifierUnavailable`."""
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
        """The processes themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the processes, whatever they are at."""
        self.pool.stop()
        self.pool.join()

    def judge(self, pairs: Sequence[tuple[str, str]]) -> list[V]:
        """The verdict on each (answer, ground truth), in order; the same pair is judged once.

        A worker's death costs one retry; after a second one the answer is unparsable, or, where an answer whose
        verdict is known fails too, `VerifierUnavailable` is raised.
        """
        futures = {pair: self.submit(pair, self.seconds) for pair in dict.fromkeys(pairs)}
        verdicts = {pair: self.result(pair, future) for pair, future in futures.items()}
        return [verdicts[pair] for pair in pairs]

    def submit(self, pair: tuple[str, str], seconds: float) -> ProcessFuture[V]:
        """Starts to judge one pair."""
        return self.pool.schedule(self.judge_of_one.verdict, args=pair, timeout=seconds)

    def result(self, pair: tuple[str, str], future: ProcessFuture[V]) -> V:
        """Waits for a verdict."""
        try:
            return self.attempt(future)
        except ProcessExpired:
            try:
                return self.attempt(self.submit(pair, self.seconds))
            except ProcessExpired:
                self.check_itself()
                return self.judge_of_one.unparsable

    def attempt(self, future: ProcessFuture[V]) -> V:
        """The verdict. What the verifier can't digest (it may raise anything) is unparsable."""
        try:
            return future.result()
        except ProcessExpired:
            raise
        except BrokenProcessPool as error:
            raise VerifierUnavailable(f"the processes that verify answers die: {error}") from error
        except Exception as error:
            log.debug("unparsable: %r", error)
            return self.judge_of_one.unparsable

    def check_itself(self) -> None:
        """Raises `VerifierUnavailable` where the judge doesn't tell right from wrong, whatever the reason."""
        judge = self.judge_of_one
        for pair, verdict in judge.known.items():
            found: object
            try:
                found = self.submit(pair, START_SECONDS).result()
            except Exception as error:
                found = repr(error)
            if found != verdict:
                raise VerifierUnavailable(
                    f"{judge.name} finds {pair[0]} {found} where {pair[1]} is right: its installation is broken; "
                    f"try {judge.remedy}"
                )
