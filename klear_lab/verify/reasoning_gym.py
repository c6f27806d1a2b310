"""Verifies answers to problems of reasoning-gym, each task by its own rules."""

import ast
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Self

from klear_lab.config import ConfigError
from klear_lab.rows import Row, shown
from klear_lab.verify.json_objects import read_ground_truth
from klear_lab.verify.processes import Judge, VerifierProcesses
from klear_lab.verify.registry import Verdict, Verifier, VerifierSettings, verifier

# Tasks whose verifiers execute the answer: as Python, or by sympy's parser, which makes Python of it.
EXECUTED_BY_PYTHON = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
PLAIN = (ast.Expression, ast.Constant, ast.Name, ast.List, ast.Tuple, ast.UnaryOp, ast.unaryop, ast.expr_context)
EXECUTED_BY_SYMPY = (
    "countdown",
    "puzzle24",
    "polynomial_multiplication",
    "simple_integration",
    "intermediate_integration",
)
FUNCTIONS = (
    *("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "acot", "asec", "acsc", "sinh", "cosh"),
    *("tanh", "coth", "asinh", "acosh", "atanh", "exp", "log", "ln", "sqrt", "cbrt", "Abs", "abs", "sign", "pi"),
    *("erf", "Rational", "Integer", "Float"),
)
NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
# Names are functions and single letters, and a point stands in a number alone: no attribute, text, list or
# assignment can be written so, whatever sympy's parser makes of the rest. (?>...) takes a number whole: in
# parts, n digits have 2^n ways to fail.
FORMULA = re.compile(rf"(?:(?>{NUMBER})|(?<!\w)(?:{'|'.join(FUNCTIONS)}|[^\W\d_])(?!\w)|[-+*/^(),!\s])*")


def verify(answer: str, ground_truth: str) -> float:
    """Returns the task's own score of an answer, from 0 to 1; some tasks give part of it for a near miss.

    0 for an answer that the verifier can't digest, or that it would execute though it isn't a plain value or
    formula. A formula may still take for ever: call this in a process that may fail, with a time limit.
    """
    truth, answer = json.loads(ground_truth), answer.strip()
    if not is_harmless(answer, truth["task"]):
        return 0.0
    scorer = make_scorer(truth["task"], json.dumps(truth["config"], sort_keys=True))
    try:
        score = float(scorer.score_answer(answer, unpack(truth["entry"])))
    except Exception:  # anything, from 106 verifiers written by many hands
        return 0.0
    return min(max(score, 0.0), 1.0)


def is_harmless(answer: str, task: str) -> bool:
    """Tells whether a task's verifier does nothing with an answer but read values and work out formulas."""
    if task in EXECUTED_BY_SYMPY:
        return FORMULA.fullmatch(answer) is not None
    if task not in EXECUTED_BY_PYTHON:
        return True
    try:
        return all(isinstance(node, PLAIN) for node in ast.walk(ast.parse(answer, mode="eval")))
    except (SyntaxError, ValueError):
        return True  # nothing that Python could execute
    except (MemoryError, RecursionError):
        return False


OBJECTS = ("config", "entry")
FORM = '{"task", "config", "entry"}, as data_source=reasoning_gym writes it'
SUM = json.dumps({"task": "chain_sum", "config": {}, "entry": {"answer": "42", "metadata": {}}})

REASONING_GYM: Judge[float | None] = Judge(
    "reasoning-gym",
    verify,
    None,
    {("42", SUM): 1.0, ("43", SUM): 0.0},
    ("klear_lab.verify.reasoning_gym", "reasoning_gym"),
    "pip install reasoning-gym",
)


def make_task(task: str, settings: Mapping[str, Any]) -> Any:
    """Makes a data set of reasoning-gym. Raises `ConfigError` for an unknown task or setting."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise ConfigError(f"task={task}: needs reasoning-gym; pip install reasoning-gym") from error
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=3) or sorted(DATASETS)
        raise ConfigError(f"task={task}: reasoning-gym has no such task; nearest: {', '.join(close)}")
    try:
        return reasoning_gym.create_dataset(task, **settings)
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"task={task} with {dict(settings)}: {error}") from error


@lru_cache(maxsize=128)
def make_scorer(task: str, settings: str) -> Any:
    """Makes the task once, for its `score_answer`; `settings` is JSON."""
    return make_task(task, {**json.loads(settings), "size": 1, "seed": 0})


def pack(value: Any) -> Any:
    """Turns a value into JSON types; marks tuples and keys that aren't text, since verifiers compare by them."""
    if isinstance(value, tuple):
        return {"__tuple__": [pack(item) for item in value]}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: pack(item) for key, item in value.items()}
        return {"__pairs__": [[pack(key), pack(item)] for key, item in value.items()]}
    return value


def unpack(value: Any) -> Any:
    """Returns what `pack` was given."""
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"__tuple__"}:
        return tuple(unpack(item) for item in value["__tuple__"])
    if set(value) == {"__pairs__"}:
        return {unpack(key): unpack(item) for key, item in value["__pairs__"]}
    return {key: unpack(item) for key, item in value.items()}


def read_truth(ground_truth: str) -> dict[str, Any]:
    """Returns the task, config and entry of a ground truth. Raises `ValueError` that says what is wrong."""
    truth = read_ground_truth(ground_truth, f"must be an object of {FORM}")
    if not isinstance(truth, dict):
        raise ValueError(f"ground_truth is {shown(truth)}; must be an object of {FORM}")
    for key, kind, must_be in (("task", str, "the name of a task"), *((k, dict, "an object") for k in OBJECTS)):
        if not isinstance(truth.get(key), kind):
            raise ValueError(f"{key}: is {shown(truth.get(key))}; must be {must_be}, in an object of {FORM}")
    entry = truth["entry"]
    if "answer" not in entry or not isinstance(entry.get("metadata"), dict):
        keys = ", ".join(entry) or "no keys"
        raise ValueError(
            f"entry: has {keys}; must have the answer and an object of metadata, as the task made them"
        )
    try:
        unpack(entry)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"entry: holds a __pairs__ or __tuple__ that can't be read ({error})") from error
    return truth


@verifier
class PuzzleVerifier(Verifier):
    """Judges answers to problems of reasoning-gym, some of whose tasks give part of the score for a near miss."""

    part = "reasoning_gym"
    reasons = ("correct", "wrong", "unparsable")

    def __init__(self, processes: VerifierProcesses[float | None]) -> None:
        """`processes` judge by `verify`."""
        self.processes = processes

    @classmethod
    def check(cls, row: Row) -> None:
        """Raises `ConfigError` for a ground truth that no answer can meet: another form, task or setting.

        Where reasoning-gym isn't installed, `open` says so.
        """
        try:
            truth = read_truth(row["reward_model"]["ground_truth"])
            if find_spec("reasoning_gym") is not None:
                make_scorer(truth["task"], json.dumps(truth["config"], sort_keys=True))
        except ValueError as error:
            raise ConfigError(f"row {row.get('id')}: {error}") from error

    @classmethod
    @contextmanager
    def open(cls, settings: VerifierSettings) -> Iterator[Self]:
        """Starts the processes. Raises `VerifierUnavailable`."""
        with VerifierProcesses(REASONING_GYM, settings.workers, settings.reward.math_seconds) as processes:
            yield cls(processes)

    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """Gives the tasks' own scores."""
        pairs = [(a, row["reward_model"]["ground_truth"]) for a, row in zip(answers, rows, strict=True)]
        return [puzzle_verdict(score) for score in self.processes.judge(pairs)]


def puzzle_verdict(score: float | None) -> Verdict:
    """Turns a score of reasoning-gym into a verdict; None is a score that didn't come in time."""
    if score is None:
        return Verdict(0.0, "unparsable")
    return Verdict(score, "correct" if score == 1 else "wrong")
