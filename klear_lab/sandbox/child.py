"""The process that executes a model-written program, inside the sandbox: limits itself, then runs its tests.

Each test runs in a fresh module of one process, as the benchmarks' own runners do. What a program can do to this
process harms its own tests alone: worker.py starts a new one where a test doesn't end by itself.
"""

import _thread
import atexit
import builtins
import collections
import contextlib
import gc
import json
import os
import random
import re
import resource
import signal
import sys
import threading
import traceback
import types
from typing import Any

NAME = re.compile(r"\w+")
PROGRAM = "program.py"  # the name that a program finds for itself
OUTPUT_BYTES = 16 << 20  # of standard output, and of any file
# Where a child finds its end of things: its own standard streams, and the originals they are restored from.
INPUT, OUTPUT, ERRORS, VALUE, CONTROL = 60, 61, 62, 63, 64
# How a test ended, as the child reports it in one byte, and in a second one whether it can run another test.
ENDED, RAISED, NO_MEMORY, UNCOMPILED = b"e", b"r", b"m", b"u"
REUSABLE, SPENT = b"+", b"-"


def limit_resources(cpu_seconds: float, memory_bytes: int, threads: int | None) -> None:
    """For this process. `threads` needs a user of its own to count for: None leaves it open."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: int(cpu_seconds) + 2,  # a second guard: the worker counts seconds on the wall
        resource.RLIMIT_FSIZE: OUTPUT_BYTES,
        resource.RLIMIT_NOFILE: 128,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
    }
    if threads is not None:
        limits[resource.RLIMIT_NPROC] = threads
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))


def serve_tests(request: dict[str, Any], first: int) -> None:
    """In the child: runs the tests from `first` on, each when told to, and reports how each ended."""
    code, built_ins = None, often_replaced()
    for test in request["tests"][first:]:
        if not os.read(CONTROL, 1):
            return
        reusable = True
        try:
            code = code or compile(request["program"], PROGRAM, "exec", dont_inherit=True)
        except MemoryError:
            outcome = NO_MEMORY
        except (SyntaxError, ValueError, RecursionError, OverflowError):
            outcome = UNCOMPILED
            report_exception()
        else:
            outcome = run_test(code, test)
            reusable = clean_up() and often_replaced() == built_ins
        os.write(CONTROL, outcome + (REUSABLE if reusable and outcome != NO_MEMORY else SPENT))


def run_test(code: types.CodeType, test: dict[str, Any]) -> bytes:
    """One test in a fresh module; returns how it ended."""
    open_streams()
    sys.argv = [PROGRAM]
    module = types.ModuleType("solution" if "call" in test else "__main__")
    module.__file__ = PROGRAM
    given = {*vars(module), "__builtins__"}
    sys.modules[module.__name__] = module
    random.seed(0)
    try:
        try:
            exec(code, module.__dict__)
            if "call" in test:
                call = find_callable(test["call"], module.__dict__, given)
                value = call(*test["args"], **test.get("kwargs", {}))
                if test.get("truth"):
                    value = bool(value)
                os.write(VALUE, json.dumps(value, default=plain_value).encode())
        except SystemExit:
            if "call" in test:
                raise
        finish()
    except MemoryError:
        return NO_MEMORY
    except BaseException:
        report_exception()
        return RAISED
    finally:
        module.__dict__.clear()
    return ENDED


def open_streams() -> None:
    """New text streams over the three descriptors."""
    given = (
        open(0, errors="surrogateescape", closefd=False),  # noqa: SIM115
        open(1, "w", errors="surrogateescape", closefd=False),  # noqa: SIM115
        open(2, "w", errors="backslashreplace", closefd=False),  # noqa: SIM115
    )
    for name, stream in zip(("stdin", "stdout", "stderr"), given, strict=True):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def often_replaced() -> tuple[int, ...]:
    """Identifies the built-in functions that programs put their own in place of, which would outlive a test.

    Not all of them: to look at one copies memory of the worker.
    """
    return (*(id(vars(builtins).get(name)) for name in ("print", "input", "open")), len(vars(builtins)))


def find_callable(call: str, names: dict[str, Any], given: set[str]) -> Any:
    """A function of the program, or a method of its `Solution`, as LeetCode's problems have it.

    `given`: names that a module has before its program runs. Raises `NameError` where the program has none of the
    call's: built-in functions and the prelude's answer no test.
    """
    solution = names.get("Solution")
    if isinstance(solution, type) and any(call in vars(kind) for kind in solution.__mro__ if kind is not object):
        return getattr(solution(), call)
    begins_with = NAME.match(call)
    name = begins_with[0] if begins_with else ""
    if name in given or name not in names:
        raise NameError(f"the program defines no {name}")
    return eval(call, names)


def plain_value(value: Any) -> Any:
    """What JSON has no word for: numbers of numpy, and sequences that aren't lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, collections.deque | range | map | filter | zip):
        return list(value)
    raise TypeError(f"the call returned a {type(value).__name__}, which JSON can't hold")


def finish() -> None:
    """What Python does at the end of a program: tell executors, wait for threads, run exit functions, flush."""
    for function in reversed(threading._threading_atexits):  # type: ignore[attr-defined]
        function()
    current = threading.current_thread()
    while waiting := [t for t in threading.enumerate() if t is not current and not t.daemon]:
        for thread in waiting:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        flush = getattr(stream, "flush", None)
        if flush is not None:
            with contextlib.suppress(ValueError):  # the program has closed or detached it
                flush()


def report_exception() -> None:
    """The end of the traceback goes to standard error, where the worker finds it, if there is room."""
    kind, error, trace = sys.exc_info()
    text = "".join(traceback.format_exception(kind, error, trace and trace.tb_next, limit=-3))
    with contextlib.suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))


def clean_up() -> bool:
    """Makes the process fit for the next test; False where it can't be."""
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, name, None)
        setattr(sys, f"__{name}__", None)
    signal.alarm(0)
    if "fileinput" in sys.modules:
        sys.modules["fileinput"].close()  # it reads one input at a time, and would go on with this test's
    gc.collect()  # files that the test left open close their descriptors now, not during the next one
    try:
        for standard, original in enumerate((INPUT, OUTPUT, ERRORS)):
            os.dup2(original, standard)
        os.fstat(VALUE)
    except OSError:
        return False
    executors_told_to_end = bool(threading._threading_atexits)  # type: ignore[attr-defined]
    return _thread._count() == 0 and not executors_told_to_end
