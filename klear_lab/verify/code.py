"""Code problems: the program of a response, the test cases of a row, and what they say.

A row's `ground_truth` is JSON (the released Klear format, and that of LiveCodeBench, APPS and TACO):

    {"inputs": [...], "outputs": [...]}                    standard input and output; a list is its lines
    {"inputs": [...], "outputs": [...], "fn_name": "f"}    calls; arguments as a list, or JSON, one a line
    {"functional": "assert f(1) == 2" | [...]}             assertions, read as calls

with `timeout` (seconds for each test), `max_test_cases` and `tolerance` (relative, for fractions) where they
differ from the config's. Assertions aren't executed: beside the program they would be at its mercy.
"""

import ast
import json
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

from klear_lab.config import ConfigError, RewardConfig
from klear_lab.rows import Row
from klear_lab.sandbox.pool import Case, CaseResult, Job, SandboxPool
from klear_lab.verify.registry import Verdict, Verifier, VerifierSettings, verifier

PROGRAM = re.compile(
    r"^[ \t]*```(?:python3?|py)[^\S\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)


@dataclass(frozen=True)
class Tests:
    """A row's test cases and its own limits, None where the config's hold."""

    __test__ = False  # not pytest's

    cases: tuple[Case, ...]
    seconds: float | None
    max_cases: int | None


def find_program(answer: str) -> str | None:
    """The last closed ```python block."""
    blocks = PROGRAM.findall(answer)
    return blocks[-1] if blocks else None


@lru_cache(maxsize=1024)
def read_tests(ground_truth: str) -> Tests:
    """The tests of a row. Raises `ValueError` that says what is wrong with them."""
    try:
        content = json.loads(ground_truth)
    except ValueError as error:
        raise ValueError(f"ground_truth is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"ground_truth is a {type(content).__name__}: must be a JSON object")
    if "functional" in content:
        sources = content["functional"]
        cases = [c for s in ([sources] if isinstance(sources, str) else sources) for c in assertions_as_calls(s)]
    elif "inputs" in content and "outputs" in content:
        cases = input_output_cases(content)
    else:
        raise ValueError(
            f"ground_truth has the keys {', '.join(sorted(content))}: must have inputs and outputs, or functional"
        )
    if not cases:
        raise ValueError("ground_truth has no test cases")
    extra = {"tolerance": content["tolerance"]} if "tolerance" in content else {}
    return Tests(tuple({**case, **extra} for case in cases), content.get("timeout"), content.get("max_test_cases"))


def input_output_cases(content: dict[str, Any]) -> list[Case]:
    """Cases of inputs and outputs, for a function where `fn_name` names one."""
    inputs, outputs, name = content["inputs"], content["outputs"], content.get("fn_name")
    if len(inputs) != len(outputs):
        raise ValueError(f"ground_truth has {len(inputs)} inputs and {len(outputs)} outputs")
    if name is None:
        return [
            {"stdin": as_text(given), "expected_stdout": as_text(expected)}
            for given, expected in zip(inputs, outputs, strict=True)
        ]
    return [call_case(name, given, expected) for given, expected in zip(inputs, outputs, strict=True)]


def as_text(content: Any) -> str:
    """A list of lines, or what else it is, as one text."""
    return "\n".join(map(str, content)) if isinstance(content, list) else str(content)


def call_case(name: str, given: Any, expected: Any) -> Case:
    """Arguments as JSON text (LiveCodeBench), or as they are (APPS, TACO, which may wrap what they expect)."""
    if isinstance(given, str):
        args = [json.loads(line) for line in given.split("\n") if line.strip()]
        return {"call": name, "args": args, "expected": json.loads(expected), "wrapped": False}
    return {"call": name, "args": given, "expected": expected, "wrapped": True}


def assertions_as_calls(source: str) -> list[Case]:
    """Assertions such as `assert f(1, k=2) == [3]` as cases, also inside of `def check(candidate)`.

    Raises `ValueError` for any that isn't a comparison of one call on plain values with a plain value.
    """
    tree = ast.parse(source)
    candidates = {
        statement.value.func.id: ast.unparse(statement.value.args[0])
        for statement in tree.body
        if isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Call)
        and isinstance(statement.value.func, ast.Name)
        and len(statement.value.args) == 1
    }
    cases: list[Case] = []
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name in candidates and statement.args.args:
            names = {statement.args.args[0].arg: candidates[statement.name]}
            cases += [as_call(inner, names) for inner in statement.body if not is_docstring(inner)]
        elif isinstance(statement, ast.Assert):
            cases.append(as_call(statement, {}))
        elif not isinstance(statement, ast.Expr | ast.Import | ast.ImportFrom):
            raise ValueError(f"line {statement.lineno} of the assertions isn't one: {ast.unparse(statement)[:80]}")
    return cases


def is_docstring(statement: ast.stmt) -> bool:
    """Whether a statement is just a string."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def as_call(statement: ast.stmt, names: dict[str, str]) -> Case:
    """One assertion as a case; `names` says what a function's parameter stands for."""
    try:
        if not isinstance(statement, ast.Assert):
            raise ValueError("not an assertion")
        test, expected = statement.test, True
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, expected = test.operand, False
        elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
            sides = [test.left, test.comparators[0]]
            test, literal = sides if isinstance(sides[0], ast.Call) else sides[::-1]
            expected = ast.literal_eval(literal)
        if not isinstance(test, ast.Call):
            raise ValueError("no call")
        args = [ast.literal_eval(arg) for arg in test.args]
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in test.keywords}
        if json.loads(json.dumps([args, kwargs])) != [args, kwargs]:
            raise ValueError("arguments that JSON can't hold")
        name = ast.unparse(test.func)
        return {
            "call": names.get(name, name),
            "args": args,
            "kwargs": kwargs,
            "expected": json.loads(json.dumps(expected)),
        }
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{ast.unparse(statement)[:80]}: only a comparison of one call on plain values can be judged ({error})"
        ) from error


def choose_cases(cases: Sequence[Case], most: int | None, draw: str) -> list[Case]:
    """At most `most` of the cases, drawn at random but the same for the same `draw`, in their order."""
    if most is None or len(cases) <= most:
        return list(cases)
    return [cases[i] for i in sorted(random.Random(draw).sample(range(len(cases)), most))]


def share_passed(results: Sequence[CaseResult]) -> float:
    """From 0 to 1."""
    return sum(result.status == "passed" for result in results) / len(results)


@verifier
class CodeVerifier(Verifier):
    """Judges programs by their rows' test cases, in the sandbox."""

    part = "coder"
    reasons = ("correct", "wrong", "no_program", "error", "timeout", "memory")

    def __init__(self, sandboxes: SandboxPool, reward: RewardConfig) -> None:
        """`reward` has the limits of a program, and how many test cases it meets in training."""
        self.sandboxes, self.reward = sandboxes, reward

    @classmethod
    def check(cls, row: Row) -> None:
        """Raises `ConfigError` for tests that can't be read."""
        read_row_tests(row)

    @classmethod
    def count_test_cases(cls, row: Row) -> int:
        """All of a row's, however many a program meets in training."""
        return len(read_row_tests(row).cases)

    @classmethod
    @contextmanager
    def open(cls, settings: VerifierSettings) -> Iterator[Self]:
        """Starts the sandboxes. Raises `SandboxUnavailable`."""
        with SandboxPool(settings.workers, settings.sandbox) as sandboxes:
            yield cls(sandboxes, settings.reward)

    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """The share of test cases that each answer's program passes."""
        programs = [find_program(answer) for answer in answers]
        jobs = [
            self.job(program, row, draw)
            for program, row in zip(programs, rows, strict=True)
            if program is not None
        ]
        results = iter(self.sandboxes.run(jobs))
        return [Verdict(0.0, "no_program") if p is None else code_verdict(next(results)) for p in programs]

    def job(self, program: str, row: Row, draw: str | None) -> Job:
        """A program with the test cases drawn for its row."""
        tests = read_row_tests(row)
        limits = [n for n in (self.reward.max_test_cases, tests.max_cases) if n is not None]
        most = min(limits) if limits and draw is not None else None
        cases = choose_cases(tests.cases, most, f"{draw}-{row.get('id')}")
        return Job(program, cases, tests.seconds or self.reward.test_seconds, self.reward.test_memory_mb)


def read_row_tests(row: Row) -> Tests:
    """The tests of a code row. Raises `ConfigError` that names the row."""
    try:
        return read_tests(row["reward_model"]["ground_truth"])
    except (ValueError, SyntaxError, TypeError) as error:
        raise ConfigError(f"row {row.get('id')}: {error}") from error


def code_verdict(results: Sequence[CaseResult]) -> Verdict:
    """All of a program's tests in one verdict; the reason is that of the first test that didn't pass."""
    missed = [result.status for result in results if result.status != "passed"]
    reason = {"failed": "wrong"}.get(missed[0], missed[0]) if missed else "correct"
    return Verdict(share_passed(results), reason)
