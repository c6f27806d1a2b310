"""Test cases of a program: their forms, and what a worker's answers make of them.

A case is `{"stdin": str, "expected_stdout": str}` or `{"call": str, "args": list, "expected": any JSON value}`.
`call` names a function of the program or a method of its class `Solution`, or reaches one from a name of the
program (`Solution().f`, `make(3)`): what the program has neither defined, imported nor assigned, no test calls.

Both forms may hold `tolerance`, the relative one for numbers, and `exact` (see output_matching.py). A call may
hold `kwargs`; `wrapped`: its expected value may be the only element of a list, as in APPS; and `truth`: not the
value that is returned is compared but whether it is true, as an `assert` has it.
"""

import ast
import contextlib
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from klear_lab.sandbox.output_matching import texts_match, values_match

Case = dict[str, Any]
FORMS = ({"stdin", "expected_stdout"}, {"call", "args", "expected"})
SHOWN_CHARACTERS = 2000  # of an output in a result
MOST_DIGITS = 400_000  # of a number in a test: to read one takes time that grows with their square
MAX_TIMEOUTS = 3
# A program that has run out of time so often must hurry: a fifth of the time for each test, but half a second.
HURRIED_SHARE, HURRIED_SECONDS = 0.2, 0.5


@dataclass(frozen=True)
class CaseResult:
    """How a test ended: `passed`, `failed` (a wrong output), `error`, `timeout` or `memory`.

    `output` is what the program wrote or its call returned, `message` the end of its standard error; both are cut.
    """

    status: str
    output: str = ""
    message: str = ""


@dataclass(frozen=True)
class Job:
    """A program and its tests, as `pool.run_tests` takes them."""

    program: str
    tests: Sequence[Case]
    seconds: float = 5.0
    memory_mb: int = 512
    max_timeouts: int = MAX_TIMEOUTS

    def hurried_seconds(self) -> float:
        """What each test may take once `max_timeouts` of them have run out of time."""
        return min(self.seconds, max(self.seconds * HURRIED_SHARE, HURRIED_SECONDS))


lifted, holders = threading.Lock(), [0, 0]  # how many threads need long numbers, and the limit outside of them


@contextlib.contextmanager
def long_numbers() -> Iterator[None]:
    """Lets Python read and write whole numbers of more than 4,300 digits meanwhile, of up to `MOST_DIGITS`."""
    with lifted:
        if holders[0] == 0:
            holders[1] = sys.get_int_max_str_digits()
            sys.set_int_max_str_digits(MOST_DIGITS)
        holders[0] += 1
    try:
        yield
    finally:
        with lifted:
            holders[0] -= 1
            if holders[0] == 0:
                sys.set_int_max_str_digits(holders[1])


def check_cases(tests: Sequence[Case]) -> None:
    """Raises `ValueError` for a test that isn't of one of the two forms."""
    for index, test in enumerate(tests):
        if not isinstance(test, dict):
            raise ValueError(f"test {index} is a {type(test).__name__}: must be a dict")
        extra = {"tolerance", "exact"} | ({"kwargs", "wrapped", "truth"} if "call" in test else set())
        if set(test) - extra not in FORMS:
            raise ValueError(
                f"test {index} has the keys {', '.join(sorted(test))}: must be stdin and expected_stdout, "
                "or call, args and expected"
            )
        strings = [test["call"]] if "call" in test else [test["stdin"], test["expected_stdout"]]
        if not all(isinstance(s, str) for s in strings) or not isinstance(test.get("args", []), list):
            raise ValueError(f"test {index}: stdin, expected_stdout and call must be strings, args a list")
        if "call" in test and not begins_with_a_name(test["call"]):
            raise ValueError(f"test {index}: call is {test['call'][:80]!r}; must begin with a name of the program")
        try:
            as_json(test)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"test {index} is more than JSON can hold: {error}") from error


@lru_cache(maxsize=1024)
def begins_with_a_name(call: str) -> bool:
    """Whether a call reaches what it calls from a name: `f`, `Solution().f` or `f(1)`, but not `"a".upper`."""
    try:
        node = ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return isinstance(node, ast.Name) and call.startswith(node.id)


def as_json(value: Any) -> str:
    """JSON text, with whole numbers of any length."""
    try:
        return json.dumps(value)
    except ValueError:
        with long_numbers():
            return json.dumps(value)


def judge_cases(job: Job, answers: Sequence[dict[str, Any]]) -> list[CaseResult]:
    """The results of a program from what the worker sent, one a test.

    A worker runs the tests in their order, and lets the program hurry once `max_timeouts` of them have run out of
    time. Whichever those were, the tests before them are held to the same time here: so what passes doesn't depend
    on the order of the tests.
    """
    results = [judge_case(test, answer) for test, answer in zip(job.tests, answers, strict=True)]
    timeouts = sum(answer["ended"] == "timeout" for answer in answers)
    if timeouts < job.max_timeouts:
        return results
    most = job.hurried_seconds()
    late = f"a program that ran out of time in {job.max_timeouts} tests or more has {most:g} s for each"
    return [
        replace(result, status="timeout", message=late) if answer.get("took", 0.0) > most else result
        for result, answer in zip(results, answers, strict=True)
    ]


def judge_case(test: Case, answer: dict[str, Any]) -> CaseResult:
    """Compares what the worker sent with what was expected."""
    status, message = answer["ended"], answer.get("message", "")
    output = answer.get("value" if "call" in test else "output", "")
    if status == "ended" and "call" in test and not output:
        status, message = "error", message or "the program ended before its call returned"
    if status == "ended":
        how = {key: test[key] for key in ("tolerance", "exact", "wrapped") if key in test}
        if "call" in test:
            matches = values_match(output, test["expected"], **how)
        else:
            matches = texts_match(output, test["expected_stdout"], **how)
        status = "passed" if matches else "failed"
    return CaseResult(status, output[:SHOWN_CHARACTERS], message)
