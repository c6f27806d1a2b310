"""Reads the test cases of a code row, and what a row says of its own limits.

A row's `ground_truth` is JSON (the released Klear format, and that of LiveCodeBench, APPS and TACO):

    {"inputs": [...], "outputs": [...]}                    standard input and output; a list is its lines
    {"inputs": [...], "outputs": [...], "fn_name": "f"}    calls; arguments as a list, or JSON, one a line
    {"functional": "assert f(1) == 2" | [...]}             assertions, read as calls

and where a row differs from the config, or from what usually counts as the same output:

    "timeout": 3           seconds for each test
    "max_test_cases": 5    of those drawn in training
    "tolerance": 1e-6      relative, for fractions; above 0 every decimal counts as a number, `1.10` as 1.1
    "exact": true          outputs are text, character by character; values of calls equal in type too

A key that is null is as good as absent. What no program could be judged by is refused when rows are read.
Assertions aren't executed: beside the program they would be at its mercy.
"""

import ast
import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from klear_lab.rows import shown
from klear_lab.sandbox.cases import Case, CaseResult, as_json, begins_with_a_name, check_cases, long_numbers
from klear_lab.sandbox.output_matching import values_match
from klear_lab.verify.json_objects import read_ground_truth

LONGEST_SECONDS = 86_400.0
DEEPEST = 100  # lists in lists, of an argument or a value


@dataclass(frozen=True)
class Tests:
    """A row's test cases and its own limits, None where the config's hold."""

    __test__ = False  # not pytest's

    cases: tuple[Case, ...]
    seconds: float | None
    max_cases: int | None


@lru_cache(maxsize=1024)
def read_tests(ground_truth: str) -> Tests:
    """The tests of a row. Raises `ValueError` that says which key is wrong, and how."""
    with long_numbers():
        content = read_ground_truth(ground_truth)
        if not isinstance(content, dict):
            raise ValueError(f"ground_truth is a {type(content).__name__}: must be a JSON object")
        content = {key: value for key, value in content.items() if value is not None}
        check_limits(content)
        cases = cases_of(content)
    if not cases:
        raise ValueError("ground_truth has no test cases")
    own = {key: content[key] for key in ("tolerance", "exact") if key in content}
    cases = [{**own, **case} for case in cases]
    check_cases(cases)
    for index, case in enumerate(cases):
        if not can_be_passed(case):
            expected = case.get("expected", case.get("expected_stdout"))
            raise ValueError(
                f"test {index} expects {shown(expected)}: nothing that a program hands in equals that"
            )
    return Tests(tuple(cases), content.get("timeout"), content.get("max_test_cases"))


def can_be_passed(case: Case) -> bool:
    """Whether what a case expects would pass it: NaN doesn't, nor half of a character."""
    if "call" not in case:
        return bool(case["expected_stdout"].isascii() or not re.search("[\ud800-\udfff]", case["expected_stdout"]))
    return values_match(as_json(case["expected"]), case["expected"], exact=case.get("exact", False))


def is_number(value: Any) -> bool:
    """Whether this is a number, and not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "timeout": (
        lambda value: is_number(value) and 0 < value <= LONGEST_SECONDS,
        f"a number of seconds above 0, {LONGEST_SECONDS:g} at most",
    ),
    "max_test_cases": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
        "a whole number from 1",
    ),
    "tolerance": (lambda value: is_number(value) and 0 <= value < 1, "a number from 0 to below 1"),
    "exact": (lambda value: isinstance(value, bool), "true or false"),
    "fn_name": (
        lambda value: isinstance(value, str) and begins_with_a_name(value),
        "the name of a function, or what leads to one from a name, as in Solution().f",
    ),
}


def check_limits(content: dict[str, Any]) -> None:
    """Raises `ValueError` for a key of the row's own that is out of range or of another type."""
    for key, (is_good, must_be) in LIMITS.items():
        if key in content and not is_good(content[key]):
            raise ValueError(f"{key}: is {shown(content[key])}; must be {must_be}")
    if content.get("exact") and content.get("tolerance"):
        raise ValueError(f"exact: is true beside a tolerance of {content['tolerance']}; must be one of them")


def cases_of(content: dict[str, Any]) -> list[Case]:
    """The cases of a row in any of its forms."""
    if "functional" in content:
        sources = content["functional"]
        sources = [sources] if isinstance(sources, str) else sources
        if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
            raise ValueError(f"functional: is {shown(sources)}; must be text, or a list of texts")
        try:
            return [case for source in sources for case in assertions_as_calls(source)]
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(f"functional: {error or type(error).__name__}") from error
    if "inputs" in content and "outputs" in content:
        return input_output_cases(content)
    raise ValueError(
        f"ground_truth has the keys {', '.join(sorted(content))}: must have inputs and outputs, or functional"
    )


def input_output_cases(content: dict[str, Any]) -> list[Case]:
    """Cases of inputs and outputs, for a function where `fn_name` names one."""
    inputs, outputs, name = content["inputs"], content["outputs"], content.get("fn_name")
    for key in ("inputs", "outputs"):
        if not isinstance(content[key], list):
            raise ValueError(f"{key}: is {shown(content[key])}; must be a list, with one element a test")
    if len(inputs) != len(outputs):
        raise ValueError(f"ground_truth has {len(inputs)} inputs and {len(outputs)} outputs")
    pairs = enumerate(zip(inputs, outputs, strict=True))
    if name is not None:
        return [call_case(name, given, expected, index) for index, (given, expected) in pairs]
    return [
        {"stdin": as_text(given, f"inputs[{index}]"), "expected_stdout": as_text(expected, f"outputs[{index}]")}
        for index, (given, expected) in pairs
    ]


def as_text(content: Any, place: str) -> str:
    """Text, or a list of lines as one. Raises `ValueError` for what isn't text or numbers."""
    lines = content if isinstance(content, list) else [content]
    if not all(isinstance(line, str | int | float) and not isinstance(line, bool) for line in lines):
        raise ValueError(f"{place}: is {shown(content)}; must be text, or a list of lines")
    return "\n".join(map(str, lines))


def call_case(name: str, given: Any, expected: Any, index: int) -> Case:
    """Arguments as JSON text (LiveCodeBench), or as they are (APPS, TACO, which may wrap what they expect)."""
    as_json_text = isinstance(given, str)
    if as_json_text:
        if not isinstance(expected, str):
            raise ValueError(f"outputs[{index}]: is {shown(expected)}; must be JSON text, as the input is")
        given = [from_json(line, f"inputs[{index}]") for line in given.split("\n") if line.strip()]
        expected = from_json(expected, f"outputs[{index}]")
    if not isinstance(given, list):
        raise ValueError(f"inputs[{index}]: is {shown(given)}; must be a list of arguments, or JSON, one a line")
    for place, value in (("inputs", given), ("outputs", expected)):
        if is_deeper(value, DEEPEST):
            raise ValueError(f"{place}[{index}]: has lists in lists deeper than {DEEPEST}")
    return {"call": name, "args": given, "expected": expected, "wrapped": not as_json_text}


def from_json(text: str, place: str) -> Any:
    """The value of JSON text. Raises `ValueError` that says where it stands."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: is not JSON ({error}): {shown(text)}") from error


def is_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are inside of each other for more than `most` levels."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(one, dict | list) and (most == 1 or is_deeper(one, most - 1)) for one in inner)


def assertions_as_calls(source: str) -> list[Case]:
    """Assertions such as `assert f(1, k=2) == [3]` as cases, also inside of `def check(candidate)`.

    Raises `ValueError` for any that isn't a comparison of one call on plain values with a plain value.
    """
    tree = ast.parse(source)
    candidates: dict[str, list[ast.expr]] = {}
    calls = [s.value for s in tree.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Name) and len(call.args) == 1:
            candidates.setdefault(call.func.id, []).append(call.args[0])
    cases: list[Case] = []
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name in candidates and statement.args.args:
            parameter = statement.args.args[0].arg
            for candidate in candidates[statement.name]:
                names = {parameter: candidate}
                cases += [as_call(inner, names) for inner in statement.body if not is_docstring(inner)]
        elif isinstance(statement, ast.Assert):
            cases.append(as_call(statement, {}))
        elif not isinstance(statement, ast.Expr | ast.Import | ast.ImportFrom):
            raise ValueError(f"line {statement.lineno} of the assertions isn't one: {ast.unparse(statement)[:80]}")
    return cases


class Named(ast.NodeTransformer):
    """Puts what some names stand for in their place."""

    def __init__(self, names: dict[str, ast.expr]) -> None:
        """`names`: what each stands for."""
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """One name."""
        return self.names.get(node.id, node)


def is_docstring(statement: ast.stmt) -> bool:
    """Whether a statement is just a string."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def as_call(statement: ast.stmt, names: dict[str, ast.expr]) -> Case:
    """One assertion as a case; `names` says what a function's parameter stands for."""
    try:
        if not isinstance(statement, ast.Assert):
            raise ValueError("not an assertion")
        test, expected = statement.test, True
        how = {"truth": True}  # `assert f(1)` holds for whatever counts as true
        while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, expected = test.operand, not expected
        if isinstance(test, ast.Compare) and expected and len(test.ops) == 1:
            if not isinstance(test.ops[0], ast.Eq | ast.Is):
                raise ValueError("neither == nor is")
            sides = [test.left, test.comparators[0]]
            how = {"exact": True} if isinstance(test.ops[0], ast.Is) else {}
            test, literal = sides if isinstance(sides[0], ast.Call) else sides[::-1]
            expected = ast.literal_eval(literal)
        if not isinstance(test, ast.Call):
            raise ValueError("no call")
        args = [ast.literal_eval(arg) for arg in test.args]
        if any(keyword.arg is None for keyword in test.keywords):
            raise ValueError("arguments by **")
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in test.keywords}
        if json.loads(json.dumps([args, kwargs])) != [args, kwargs]:
            raise ValueError("arguments that JSON can't hold")
        name = ast.unparse(Named(names).visit(copy.deepcopy(test.func)))  # other names may take it too
        if not begins_with_a_name(name):
            raise ValueError("no name of the program")
        return {
            "call": name,
            "args": args,
            "kwargs": kwargs,
            "expected": json.loads(json.dumps(expected)),
            **how,
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
