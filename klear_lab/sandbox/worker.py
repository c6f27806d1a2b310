"""What runs inside the sandbox: takes programs from the host, runs their tests, sends back what they wrote.

Started by `pool.py` with a bare interpreter; imports nothing but the standard library. Nothing here knows an
expected output: the host compares, so a program that reads every byte of this process learns no answer, and a
program that forges what is sent can only hand in a wrong one.

A program runs in a child (child.py), which can start threads but no process. After a test that doesn't end by
itself, or could leave something behind, the next one gets a new child, and an empty /tmp.

A request is 8 bytes of length and JSON `{"program", "tests", "seconds", "hurried_seconds", "memory_mb",
"max_timeouts"}`; so is each answer, with what the program wrote behind it: one a test, then one that says whether
the place is still clean.
"""

import builtins
import contextlib
import ctypes
import gc
import importlib
import importlib.machinery
import json
import os
import platform
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

# The folder of this file isn't on the path: programs must not import what lies there.
sys.path.insert(0, str(Path(__file__).parent))
from child import (
    CONTROL,
    ENDED,
    ERRORS,
    INPUT,
    NO_MEMORY,
    OUTPUT,
    PROGRAM,
    RAISED,
    REUSABLE,
    UNCOMPILED,
    limit_resources,
    serve_tests,
    set_limits_of_python,
)
from streams import contents_of, hand_over, open_streams, remove_streams, what_was_written
from system_calls import die_with_parent, refuse_system_calls, system_call_filter

sys.path.pop(0)

# What LiveCodeBench puts before every program: `from X import *` and `import X`. Later names win.
PRELUDE = (
    *("string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics"),
    *("itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"),
)
INTERPRETER_BYTES = 64 << 20  # address space of the interpreter itself, on top of the program's
OUT_OF_TIME = b"t"  # beside the child's own reports of how a test ended
WORDS = {ENDED: "ended", RAISED: "error", NO_MEMORY: "memory", UNCOMPILED: "error", OUT_OF_TIME: "timeout"}
PR_SET_DUMPABLE = 4
AT_ONCE = 1 << 20  # bytes of answers


class OnePackage:
    """Finds numpy in its folders, and nothing that is installed beside it."""

    def __init__(self, folders: list[str]) -> None:
        """`folders`: those that hold numpy's, none where it isn't installed."""
        self.folders = folders

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """What Python asks for each module that isn't in the standard library."""
        return importlib.machinery.PathFinder.find_spec(name, self.folders) if name == "numpy" else None


def add_prelude() -> None:
    """Gives every program the names it would find in the benchmarks' own runners.

    As built-in names: copying them into each test's module would touch, and so copy, half of the child's memory.
    """
    modules = {name: importlib.import_module(name) for name in PRELUDE}
    names: dict[str, Any] = {}
    for module in modules.values():
        public = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
        names.update({name: getattr(module, name) for name in public})
    builtins.__dict__.update({**names, "quit": sys.exit, **modules, **builtins.__dict__})


class Child:
    """A process that runs tests of one program, and the parent's end of its control channel."""

    def __init__(self, request: dict[str, Any], first: int, options: dict[str, Any]) -> None:
        """Forks; the child stops in `serve_tests` until it is told to run a test."""
        self.control, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                self.become_child(theirs, request, first, options)
                serve_tests(request, first)
                status = 0
            finally:
                os._exit(status)
        theirs.close()

    def become_child(
        self, control: socket.socket, request: dict[str, Any], first: int, options: dict[str, Any]
    ) -> None:
        """Takes its descriptors, and gives up what a program must not have."""
        die_with_parent()
        os.dup2(control.fileno(), CONTROL)
        for standard, original in enumerate((INPUT, OUTPUT, ERRORS)):
            os.dup2(original, standard)
        os.closerange(3, INPUT)
        os.closerange(CONTROL + 1, 256)
        memory = (request["memory_mb"] << 20) + INTERPRETER_BYTES + options["request_bytes"]
        limit_resources(request["seconds"] * (len(request["tests"]) - first), memory, options["threads"])
        refuse_system_calls(options["filter"])
        gc.enable()

    def run(self, seconds: float, host: int) -> tuple[bytes, bool]:
        """Lets it run its next test: how it ended, and whether the child is fit for another one.

        Raises `EOFError` where the host is gone meanwhile, which `host`, its end of the requests, shows.
        """
        deadline = time.monotonic() + seconds
        report = b""
        with contextlib.suppress(OSError):
            self.control.sendall(b"g")
            ready, _, _ = select.select([self.control.fileno(), host], [], [], seconds)
            if host in ready:
                self.end()
                raise EOFError("the host is gone")
            if not ready:
                return OUT_OF_TIME, False
            report = self.control.recv(2)
        if len(report) == 2:
            return report[:1], report[1:] == REUSABLE
        return self.how_it_died(deadline), False

    def how_it_died(self, deadline: float) -> bytes:
        """Why the control channel fell silent: a program may also have closed it, and run on."""
        descriptor = os.pidfd_open(self.pid)
        dead, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        os.close(descriptor)
        if not dead:
            return OUT_OF_TIME
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return NO_MEMORY  # not our kill, so the kernel's
        return ENDED if status == 0 else RAISED  # `os._exit(0)` is a way to end

    def end(self) -> None:
        """Kills and reaps it."""
        self.control.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def run_program(request: dict[str, Any], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One answer a test: how it ended, how many seconds it took, and what it wrote."""
    child, timeouts, uncompiled = None, 0, None
    writable = options["writable"]
    empty = trace_of(writable)
    for index, test in enumerate(request["tests"]):
        if uncompiled is not None:
            yield uncompiled
            continue
        if child is None:
            open_streams(options["streams"])
            child = Child(request, index, options)
        hand_over(test.get("stdin", ""))
        seconds = request["seconds" if timeouts < request["max_timeouts"] else "hurried_seconds"]
        started = time.monotonic()
        outcome, reusable = child.run(seconds, options["requests"])
        took = time.monotonic() - started
        wrote_files = trace_of(writable) != empty
        if wrote_files or not reusable:
            child.end()
            child = None
        if wrote_files:
            remove_contents(writable)
            empty = trace_of(writable)
        answer = {"ended": WORDS.get(outcome, "error"), "took": took, **what_was_written()}
        timeouts += outcome == OUT_OF_TIME
        if outcome == UNCOMPILED:
            uncompiled = answer
        yield answer
    if child is not None:
        child.end()


def receive(descriptor: int) -> bytes | None:
    """One request; None where the host has closed its end."""
    header = read_exactly(descriptor, 8)
    return None if header is None else read_exactly(descriptor, int.from_bytes(header))


def read_exactly(descriptor: int, count: int) -> bytes | None:
    """`count` bytes, or None where the other end closed before."""
    parts = []
    while count:
        part = os.read(descriptor, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def encode(answer: dict[str, Any]) -> bytes:
    """One answer, its length first; what is bytes follows it as it is, JSON would be several times as long."""
    contents = {key: value for key, value in answer.items() if isinstance(value, bytes)}
    words = {key: value for key, value in answer.items() if key not in contents}
    header = json.dumps({**words, "bytes": {key: len(value) for key, value in contents.items()}}).encode()
    return b"".join([len(header).to_bytes(8), header, *contents.values()])


def send(descriptor: int, answers: Iterable[dict[str, Any]]) -> None:
    """Several at once, since each wakes the host; those of long outputs aren't kept."""
    ready = b""
    for answer in answers:
        ready += encode(answer)
        if len(ready) > AT_ONCE:
            write(descriptor, ready)
            ready = b""
    write(descriptor, ready)


def write(descriptor: int, content: bytes) -> None:
    """All of it."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def main() -> None:
    """Serves requests until the host closes its end."""
    options = json.loads(sys.argv[1])
    requests, answers = os.dup(0), os.dup(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if options["user"] is not None:
        os.setgroups([])
        os.setresgid(*[options["user"]] * 3)
        os.setresuid(*[options["user"]] * 3)
    die_with_parent()
    if not os.access(os.__file__, os.R_OK):
        why = f"another user can't read {sys.prefix}; install bubblewrap, or Python where all users can read it"
        send(answers, [{"failed": why}])
        return
    sys.argv, sys.orig_argv = [PROGRAM], [PROGRAM]  # not this program's, whose argument says more than it need
    set_limits_of_python()
    sys.meta_path.append(OnePackage(options["packages"]))
    add_prelude()
    gc.freeze()
    gc.disable()
    options["filter"] = system_call_filter(options["read_only"], platform.machine())
    send(answers, [{"ready": sys.version}])
    before = trace_of(options["writable"]), contents_of(options["streams"])
    while (content := receive(requests)) is not None:
        given = {**options, "request_bytes": 2 * len(content), "requests": requests}
        send(answers, run_program(json.loads(content), given))
        remove_streams(options["streams"])
        after = trace_of(options["writable"]), contents_of(options["streams"])
        send(answers, [{"clean": after == before}])


def remove_contents(folder: str) -> None:
    """Removes all that a test has left in a folder, as far as that can be done."""
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(path, name))  # noqa: PTH108, PTH118  # paths of any depth
        for name in folders:
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(path, name))  # noqa: PTH106, PTH118


def trace_of(folder: str | None) -> int | None:
    """Changes when anything is made in a folder, or changed of it."""
    return Path(folder).stat().st_ctime_ns if folder else None


if __name__ == "__main__":
    main()
