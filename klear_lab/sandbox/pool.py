"""Runs code that a model wrote, against tests, where it can do no harm and can't see what is expected of it.

    run_tests("print(int(input()) * 2)", [{"stdin": "4", "expected_stdout": "8"}])[0].status  # "passed"

A sandbox is one process, `worker.py`, in the best isolation that isolation.py finds. Expected
outputs stay on this side, and a sandbox that a program left in any way but by ending isn't used again.
"""

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from klear_lab.sandbox.cases import MAX_TIMEOUTS, Case, CaseResult, Job, as_json, check_cases, judge_cases
from klear_lab.sandbox.isolation import BUBBLEWRAP, Isolation, SandboxUnavailable, find_isolation, worker_command

__all__ = ["Case", "CaseResult", "Job", "SandboxPool", "SandboxUnavailable", "run_tests"]

START_SECONDS = 60.0
REAP_SECONDS = 5.0  # for processes that have been killed to be gone
SPARE_SECONDS = 30.0  # of a whole program, on top of the time for its tests: forking, reading, writing
KNOWN_GOOD = ("print(input())", [{"stdin": "alive", "expected_stdout": "alive"}])
NUMBERS = itertools.count()  # of the sandboxes that this process has started


class WorkerDied(RuntimeError):
    """The sandbox ended while it had a program."""


def run_tests(
    program: str,
    tests: Sequence[Case],
    *,
    seconds: float = 5.0,
    memory_mb: int = 512,
    max_timeouts: int = MAX_TIMEOUTS,
    sandbox: str = "auto",
) -> list[CaseResult]:
    """One result a test, in order, whatever the program does.

    A test is `{"stdin": str, "expected_stdout": str}` or `{"call": str, "args": list, "expected": any JSON}`,
    see cases.py. `seconds` is wall time for each test, and where `max_timeouts` of them run out of it,
    `Job.hurried_seconds` is. `memory_mb` is address space on top of the interpreter's. `sandbox`: `auto`, or
    `required` to refuse anything but bubblewrap.

    Raises `ValueError` for a test of another form, `SandboxUnavailable` where no sandbox can be had.
    """
    with SandboxPool(1, sandbox=sandbox) as pool:
        return pool.run([Job(program, tests, seconds, memory_mb, max_timeouts)])[0]


class Sandbox:
    """One worker process. Use it from one thread: it dies with the thread that started it."""

    def __init__(self, isolation: Isolation) -> None:
        """Starts it. Raises `SandboxUnavailable` where that fails."""
        info, info_of_bubblewrap = os.pipe()
        # Only bubblewrap closes its end: a worker that inherited it would keep `info` open for good.
        passed = (info_of_bubblewrap,) if isolation is BUBBLEWRAP else ()
        self.process = subprocess.Popen(
            worker_command(isolation, next(NUMBERS), info_of_bubblewrap),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"},
            start_new_session=True,
            bufsize=0,
            pass_fds=passed,
        )
        os.close(info_of_bubblewrap)
        with os.fdopen(info) as file:
            worker = file.read()
        self.worker = worker_behind(worker)
        # bubblewrap's worker leads a group of its own.
        self.groups = [self.process.pid, *([json.loads(worker)["child-pid"]] if worker else [])]
        assert self.process.stdout is not None
        self.answers, self.unread = self.process.stdout.fileno(), bytearray()
        self.poll = select.poll()
        self.poll.register(self.answers, select.POLLIN)
        try:
            ready = self.receive(time.monotonic() + START_SECONDS)
        except WorkerDied as error:
            said = self.close()
            raise SandboxUnavailable(
                f"the sandbox ({isolation.name}) doesn't start: {said.decode(errors='replace').strip() or error}"
            ) from error
        if "failed" in ready:
            self.close()
            raise SandboxUnavailable(f"the sandbox ({isolation.name}) doesn't start: {ready['failed']}")
        self.clean = True

    def run(self, job: Job) -> list[CaseResult]:
        """One result a test. Raises `WorkerDied`; `clean` says whether another program may come after this one."""
        self.clean = False
        tests = list(job.tests)
        shown = ("stdin", "call", "args", "kwargs", "truth")
        given = [{key: test[key] for key in shown if key in test} for test in tests]
        deadline = time.monotonic() + job.seconds * len(tests) + SPARE_SECONDS
        self.send(
            {
                "program": job.program,
                "tests": given,
                "seconds": job.seconds,
                "hurried_seconds": job.hurried_seconds(),
                "memory_mb": job.memory_mb,
                "max_timeouts": job.max_timeouts,
            }
        )
        answers = [self.receive(deadline) for _ in tests]
        self.clean = self.receive(deadline)["clean"] and all(a["ended"] in ("ended", "error") for a in answers)
        return judge_cases(job, answers)

    def send(self, message: dict[str, Any]) -> None:
        """One message, its length first."""
        assert self.process.stdin is not None
        content = as_json(message).encode()
        left = memoryview(len(content).to_bytes(8) + content)
        try:
            while left:
                left = left[self.process.stdin.write(left) :]
        except OSError as error:
            raise WorkerDied("it closed its input") from error

    def receive(self, deadline: float) -> dict[str, Any]:
        """One message. Raises `WorkerDied` where none comes in time."""
        message: dict[str, Any] = json.loads(self.read(int.from_bytes(self.read(8, deadline)), deadline))
        for key, count in message.pop("bytes").items():
            message[key] = self.read(count, deadline).decode("utf-8", "replace")
        return message

    def read(self, count: int, deadline: float) -> bytes:
        """`count` bytes of what the worker writes."""
        while len(self.unread) < count:
            if not self.poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise WorkerDied("it doesn't answer")
            part = os.read(self.answers, 1 << 20)
            if not part:
                raise WorkerDied("it closed its output")
            self.unread += part
        content = bytes(self.unread[:count])
        del self.unread[:count]
        return content

    def kill(self) -> None:
        """Kills it, and with it whatever runs inside."""
        if self.worker is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.worker, signal.SIGKILL)
        self.process.kill()

    def close(self) -> bytes:
        """Kills it and lets go of it; returns what it wrote to standard error."""
        self.kill()
        _, said = self.process.communicate()
        if self.worker is not None:
            os.close(self.worker)
            self.worker = None
        for group in self.groups:
            reap(group)
        return said


def worker_behind(info: str) -> int | None:
    """A descriptor of the process that bubblewrap, which may not signal it itself as root, has told of."""
    try:
        return os.pidfd_open(json.loads(info)["child-pid"]) if info else None
    except ProcessLookupError:
        return None


def reap(group: int) -> None:
    """Waits for the killed processes of a group that were left to this one, as they are to a container's first.

    Elsewhere another process inherits them, and there are none to wait for.
    """
    deadline = time.monotonic() + REAP_SECONDS
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-group, os.WNOHANG) == (0, 0):
                time.sleep(0.001)


class SandboxPool:
    """`workers` sandboxes that run programs side by side; use as a context manager."""

    def __init__(self, workers: int, sandbox: str = "auto") -> None:
        """Raises `SandboxUnavailable` where no isolation is good enough for `sandbox`, or none works."""
        self.isolation = find_isolation(sandbox)
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
        self.of_thread = threading.local()
        self.open: set[Sandbox] = set()
        self.closed, self.lock = False, threading.Lock()
        try:
            self.threads.submit(self.check_itself).result()
        except SandboxUnavailable:
            self.__exit__()
            raise

    def __enter__(self) -> "SandboxPool":
        """The pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends all programs and sandboxes."""
        self.threads.shutdown(wait=False, cancel_futures=True)
        with self.lock:
            self.closed = True
            for sandbox in self.open:
                sandbox.kill()
        self.threads.shutdown(wait=True)
        for sandbox in self.open:
            sandbox.close()

    def run(self, jobs: Sequence[Job]) -> list[list[CaseResult]]:
        """The results of each program, in the order of `jobs`; programs that are the same run once.

        Raises `ValueError` for a test of unknown form, `SandboxUnavailable` where sandboxes keep dying.
        """
        for job in jobs:
            check_cases(job.tests)
        keys = [
            (job.program, as_json(list(job.tests)), job.seconds, job.memory_mb, job.max_timeouts) for job in jobs
        ]
        futures = {
            key: self.threads.submit(self.run_job, job) for key, job in dict(zip(keys, jobs, strict=True)).items()
        }
        return [futures[key].result() for key in keys]

    def run_job(self, job: Job) -> list[CaseResult]:
        """A death of the sandbox costs one retry. After a second one the program or the sandbox is to blame."""
        for _ in range(2):
            try:
                return self.sandbox().run(job)
            except WorkerDied as error:
                reason = error
        self.check_itself()
        return [CaseResult("error", message=f"the sandbox died of it twice: {reason}") for _ in job.tests]

    def check_itself(self) -> None:
        """Raises `SandboxUnavailable` where a program that is right doesn't pass: nothing else would either."""
        try:
            (good,) = self.sandbox().run(Job(*KNOWN_GOOD))
        except WorkerDied as error:
            raise SandboxUnavailable(f"sandboxes ({self.isolation.name}) keep dying: {error}") from error
        if good.status != "passed":
            raise SandboxUnavailable(f"sandboxes ({self.isolation.name}) fail a program that is right: {good}")

    def sandbox(self) -> Sandbox:
        """This thread's sandbox, a new one where the last program left its place unclean."""
        current: Sandbox | None = getattr(self.of_thread, "sandbox", None)
        if current is not None and current.clean:
            return current
        if current is not None:
            with self.lock:
                self.open.discard(current)
            current.close()
        made = self.of_thread.sandbox = Sandbox(self.isolation)
        with self.lock:
            self.open.add(made)
            if self.closed:
                made.kill()
        return made
