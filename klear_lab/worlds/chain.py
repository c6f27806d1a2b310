"""Chain arithmetic: "7+5*3-2=", evaluated left to right modulo 10, with one line of trace for each step.

This is the embedded math world. A problem of k steps has 10 * 30**k forms, so fresh prompts never run out and
benchmarks can be disjoint from training. Teachers hold *misconceptions*: facts they always misremember the
same way. Independent slips would be no use, since sampling at temperature 0.6 hides them; the student learns
a misconception, which leaves RL a right answer to discover at low probability.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

BENCHMARK, DATA_SOURCE, ABILITY = "chain", "chain_exact", "math"
OPERATIONS = "+-*"
Fact = tuple[int, str, int]
FACTS: list[Fact] = [(a, op, b) for a in range(10) for op in OPERATIONS for b in range(10)]


def compute(a: int, operation: str, b: int) -> int:
    """Returns `a operation b` modulo 10."""
    if operation == "+":
        return (a + b) % 10
    return (a - b) % 10 if operation == "-" else (a * b) % 10


def sample_prompt(generator: random.Random, steps: int) -> str:
    """Draws a problem of `steps` operations, all equally likely, e.g. "7+5*3-2=" for 3."""
    parts = [str(generator.randrange(10))]
    for _ in range(steps):
        parts += [generator.choice(OPERATIONS), str(generator.randrange(10))]
    return "".join(parts) + "="


def count_problems(steps: int) -> int:
    """Returns how many problems of `steps` operations there are."""
    return 10 * 30**steps


def ground_truth(prompt: str, faulty: random.Random | None = None) -> str:
    """Returns the right answer, or a wrong one that `faulty` draws, where it is given."""
    shift = faulty.randrange(1, 10) if faulty is not None else 0
    return str((int(solve(prompt)) + shift) % 10)


def solve(prompt: str) -> str:
    """Returns the right answer, one digit."""
    value = int(prompt[0])
    for i in range(1, len(prompt) - 1, 2):
        value = compute(value, prompt[i], int(prompt[i + 1]))
    return str(value)


@dataclass(frozen=True)
class Teacher:
    """A teacher solves problems step by step, with misconceptions.

    `wrong` maps each misremembered fact to the value that this teacher believes in. It writes that value with
    probability `error_rate` and the right one otherwise.
    """

    wrong: Mapping[Fact, int]
    error_rate: float

    def answer(self, prompt: str, generator: random.Random) -> str:
        """Writes a response in long-CoT form: "<think>7+5=2;2*3=6;6-2=4</think>4"."""
        value, lines = int(prompt[0]), []
        for i in range(1, len(prompt) - 1, 2):
            fact = (value, prompt[i], int(prompt[i + 1]))
            result = compute(*fact)
            if fact in self.wrong and generator.random() < self.error_rate:
                result = self.wrong[fact]
            lines.append(f"{fact[0]}{fact[1]}{fact[2]}={result}")
            value = result
        return f"<think>{';'.join(lines)}</think>{value}"


def make_teacher(misconceptions: float, error_rate: float, seed: int | str) -> Teacher:
    """Makes a teacher that misremembers the share `misconceptions` of the 300 facts."""
    generator = random.Random(f"teacher-{seed}")
    chosen = generator.sample(FACTS, round(misconceptions * len(FACTS)))
    wrong = {fact: (compute(*fact) + generator.randrange(1, 10)) % 10 for fact in chosen}
    return Teacher(wrong, error_rate)


def verify(answer: str, ground_truth: str) -> bool:
    """Tells whether `answer`, the text after the thought, is the ground truth; ignores outer white space."""
    return answer.strip() == ground_truth
