"""Functions of an integer, written as steps: "d3u5p2m7=" asks for a Python function that applies four of them.

This is the embedded code world, the counterpart of chain.py. A step is a letter and a digit, and each has one
right line of Python. Teachers hold *misconceptions*: steps whose line they always misremember the same way, as one
that differs on some inputs only (a rounding, a border). So a program with a misconception passes part of its
tests, and the soft reward tells what the hard one can't. The sandbox judges programs by running real test cases.
"""

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BENCHMARK, DATA_SOURCE, ABILITY = "code", "functions_coder1", "code"
TEST_CASES = 16
DIGITS = range(2, 10)
# Letter -> the right expression, and the one that a misconception has in its place.
EXPRESSIONS = {
    "d": ("x//{d}", "int(x/{d})"),
    "m": ("x%{d}0", "abs(x)%{d}0"),
    "p": ("abs(x-{d})", "abs(x)-{d}"),
    "u": ("x+{d}*(x>0)", "x+{d}"),
    "o": ("x-{d}*(x%2)", "x-{d}"),
    "t": ("x+{d}*(x>{d})", "x+{d}*(x>-{d})"),
    "q": ("x^{d}", "x|{d}"),
    "n": ("{d}-x", "{d}-abs(x)"),
}
Step = tuple[str, int]
STEPS: list[Step] = [(letter, digit) for letter in EXPRESSIONS for digit in DIGITS]
INPUTS = range(-30, 31)
LINE = re.compile(r"^ x=(.*)$", re.MULTILINE)


def expression(step: Step, wrong: bool = False) -> str:
    """Returns a step's line of Python, right of the `=`; `wrong`: as a misconception has it."""
    letter, digit = step
    return EXPRESSIONS[letter][wrong].format(d=digit)


FUNCTIONS: dict[str, Callable[[int], int]] = {
    text: eval(f"lambda x: {text}") for step in STEPS for text in (expression(step), expression(step, wrong=True))
}


def sample_prompt(generator: random.Random, steps: int) -> str:
    """Draws a problem of `steps` steps, all equally likely, e.g. "d3u5p2m7=" for 4."""
    return "".join(f"{letter}{digit}" for letter, digit in generator.choices(STEPS, k=steps)) + "="


def count_problems(steps: int) -> int:
    """Returns how many problems of `steps` steps there are."""
    return len(STEPS) ** steps


def steps_of(prompt: str) -> list[Step]:
    """Returns the steps that a prompt asks for."""
    return [(prompt[i], int(prompt[i + 1])) for i in range(0, len(prompt) - 1, 2)]


def apply(expressions: list[str], x: int) -> int:
    """Returns what a program of these lines returns for x, without running one."""
    for text in expressions:
        x = FUNCTIONS[text](x)
    return x


def right_expressions(prompt: str) -> list[str]:
    """Returns the lines of the right program, each right of its `=`."""
    return [expression(step) for step in steps_of(prompt)]


def write_program(expressions: list[str]) -> str:
    """Writes a program as a response has it, in a python block."""
    lines = "".join(f" x={text}\n" for text in expressions)
    return f"```python\ndef f(x):\n{lines} return x\n```"


def ground_truth(prompt: str, faulty: random.Random | None = None) -> str:
    """Writes 16 test cases in the released Klear format; the prompt alone draws their inputs.

    Where `faulty` is given, a quarter of them, drawn by it, expect a wrong value, as a faulty test suite does.
    """
    inputs = sorted(random.Random(f"{prompt}-inputs").sample(INPUTS, TEST_CASES))
    outputs = [apply(right_expressions(prompt), x) for x in inputs]
    if faulty is not None:
        for i in faulty.sample(range(TEST_CASES), TEST_CASES // 4):
            outputs[i] += faulty.choice((-2, -1, 1, 2))
    return json.dumps({"inputs": [[x] for x in inputs], "outputs": outputs, "fn_name": "f"})


def verify(answer: str, ground_truth: str) -> bool:
    """Judges a teacher's answer as the sandbox would, without running it; any other program counts as wrong."""
    expressions = LINE.findall(answer)
    if answer != write_program(expressions) or not all(text in FUNCTIONS for text in expressions):
        return False
    tests = json.loads(ground_truth)
    return all(apply(expressions, x) == y for (x,), y in zip(tests["inputs"], tests["outputs"], strict=True))


@dataclass(frozen=True)
class Teacher:
    """A teacher writes programs; it gets each step in `wrong` wrong with probability `error_rate`."""

    wrong: Mapping[Step, bool]
    error_rate: float

    def expressions(self, prompt: str, generator: random.Random) -> list[str]:
        """Draws the lines of one answer's program, each right of its `=`."""
        return [
            expression(step, wrong=step in self.wrong and generator.random() < self.error_rate)
            for step in steps_of(prompt)
        ]

    def answer(self, prompt: str, generator: random.Random) -> str:
        """Writes a response in long-CoT form: the steps one by one, then the program."""
        thought = ";".join(f"{letter}{digit}" for letter, digit in steps_of(prompt))
        return f"<think>{thought}</think>{write_program(self.expressions(prompt, generator))}"


def make_teacher(misconceptions: float, error_rate: float, seed: int | str) -> Teacher:
    """Makes a teacher that misremembers the share `misconceptions` of the 64 steps."""
    generator = random.Random(f"functions-teacher-{seed}")
    return Teacher(dict.fromkeys(generator.sample(STEPS, round(misconceptions * len(STEPS))), True), error_rate)
