"""The process that executes a model-written program, inside the sandbox: limits itself, then runs its tests.

Each test runs in a fresh module of one process, as the benchmarks' own runners do, unless the program could leave
something behind for its next test: then worker.py starts a new process for each. It does so too where a test
doesn't end by itself.
"""

import _thread
import atexit
import builtins
import collections
import contextlib
import contextvars
import gc
import json
import opcode
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
# Modules that keep nothing of what a program does with them, or what is put back for each test.
KEEP_NOTHING = {
    *("abc", "array", "atexit", "base64", "binascii", "bisect", "cmath", "cmd", "code", "collections"),
    *("contextlib", "contextvars", "copy", "dataclasses", "datetime", "decimal", "enum", "fileinput", "fractions"),
    *("functools", "graphlib", "hashlib", "heapq", "io", "itertools", "json", "keyword", "math", "numbers"),
    *("operator", "os", "pprint", "queue", "random", "re", "secrets", "select", "stat", "statistics", "string"),
    *("struct", "sys", "textwrap", "time", "timeit", "token", "types", "typing", "zlib"),
}
# Other modules could: with stacks of threads, event loops, handlers of signals and logs.
LEAVE_TRACES = sys.stdlib_module_names - KEEP_NOTHING
# Words of what changes the process, or reaches any name at all.
CHANGE_ALL = {
    *("__builtins__", "__dict__", "__import__", "chdir", "delattr", "environ", "eval", "exec", "putenv"),
    *("setattr", "umask", "unsetenv"),
}
IMPORT, MORE = opcode.opmap["IMPORT_NAME"], opcode.EXTENDED_ARG
# An assignment to an attribute, such as `random.randint = mine`; the group is what it is an attribute of.
ASSIGNS = re.compile(r"\b(\w+)(?:\.\w+)+[ \t]*[-+*/|&]?=(?!=)")
PROGRAM = "program.py"  # the name that a program finds for itself
RECURSION_LIMIT = 50_000  # as LiveCodeBench
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
    code, built_ins, once = None, often_replaced(), False
    for test in request["tests"][first:]:
        if not os.read(CONTROL, 1):
            return
        reusable = True
        try:
            if code is None:
                code = compile(request["program"], PROGRAM, "exec", dont_inherit=True)
                once = leaves_traces(code, request["program"])
        except MemoryError:
            outcome = NO_MEMORY
        except (SyntaxError, ValueError, RecursionError, OverflowError):
            outcome = UNCOMPILED
            report_exception()
        else:
            outcome = contextvars.Context().run(run_test, code, test)  # decimal's precision is one of these
            reusable = not once and clean_up() and often_replaced() == built_ins
        os.write(CONTROL, outcome + (REUSABLE if reusable and outcome != NO_MEMORY else SPENT))


def leaves_traces(code: types.CodeType, program: str) -> bool:
    """Whether a test could change what the next one in the same process finds, as far as words tell."""
    parts = [code]
    for part in parts:
        parts += [constant for constant in part.co_consts if isinstance(constant, types.CodeType)]
        if any(name in CHANGE_ALL for name in part.co_names) or any(m in LEAVE_TRACES for m in imported_by(part)):
            return True
    changed = {found[1] for found in ASSIGNS.finditer(program)} - {"sys"}  # whose streams are made anew
    return any(name in sys.stdlib_module_names or hasattr(builtins, name) for name in changed)


def imported_by(code: types.CodeType) -> list[str]:
    """The modules that code imports itself, by the names of their packages."""
    found, more = [], 0
    for operation, argument in zip(code.co_code[::2], code.co_code[1::2], strict=True):
        argument |= more << 8
        if operation == IMPORT:
            found.append(code.co_names[argument].partition(".")[0])
        more = argument if operation == MORE else 0
    return found


def run_test(code: types.CodeType, test: dict[str, Any]) -> bytes:
    """One test in a fresh module; returns how it ended."""
    open_streams()
    sys.argv = [PROGRAM]
    module = types.ModuleType("solution" if "call" in test else "__main__")
    module.__file__ = PROGRAM
    given = {*vars(module), "__builtins__"}
    sys.modules[module.__name__] = module
    random.seed(0)
    set_limits_of_python()
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


def set_limits_of_python() -> None:
    """Sets the limits that a program can change for itself."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    sys.set_int_max_str_digits(0)  # its time bounds what a program does with long numbers


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
