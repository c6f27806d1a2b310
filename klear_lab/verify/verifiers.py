"""Verifiers: from answers and rows to what each answer is worth, in parallel and in order.

A row's `data_source` chooses the verifier by containment, since released files add suffixes to the names. What a
verifier needs (a sandbox, processes) is opened once for a run, for the kinds of rows that it has, and tried out
before anything is trained.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from klear_lab.config import ConfigError, RewardConfig
from klear_lab.rows import Row
from klear_lab.sandbox.pool import Job, SandboxPool
from klear_lab.verify import code
from klear_lab.verify.math import CORRECT, MATH
from klear_lab.verify.processes import VerifierProcesses
from klear_lab.verify.reasoning_gym import REASONING_GYM
from klear_lab.worlds import chain

# Part of a row's data_source -> the kind of its verifier. The first that fits counts: reasoning-gym has tasks like
# chain_sum.
KINDS = {"reasoning_gym": "reasoning_gym", "chain": "exact", "math": "math", "coder": "code"}


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth before any shaping: `raw` from 0 to 1 (the share of tests passed), and why."""

    raw: float
    reason: str


def kind_of(row: Row) -> str:
    """Which verifier a row asks for. Raises `ConfigError` for a row that no verifier knows."""
    for part, kind in KINDS.items():
        if part in row["data_source"]:
            return kind
    raise ConfigError(
        f"row {row.get('id')}: data_source={row['data_source']} has no verifier; it must contain one of "
        f"{', '.join(KINDS)}"
    )


class Verifiers:
    """The verifiers that a set of rows needs; use as a context manager."""

    def __init__(self, rows: Iterable[Row], reward: RewardConfig, workers: int | None, sandbox: str) -> None:
        """`workers`: processes for each kind, None for one a core.

        Raises `ConfigError` for a row that can't be verified, and `SandboxUnavailable` or `VerifierUnavailable`
        where a verifier doesn't work on this machine.
        """
        self.reward = reward
        count = workers or os.cpu_count() or 1
        kinds = set()
        for row in rows:
            kinds.add(kind := kind_of(row))
            if kind == "code":
                read_row_tests(row)
        self.math: VerifierProcesses[str] | None = None
        self.gym: VerifierProcesses[float | None] | None = None
        with ExitStack() as stack:
            if "math" in kinds:
                self.math = stack.enter_context(VerifierProcesses(MATH, count, reward.math_seconds))
            if "reasoning_gym" in kinds:
                self.gym = stack.enter_context(VerifierProcesses(REASONING_GYM, count, reward.math_seconds))
            self.sandboxes = stack.enter_context(SandboxPool(count, sandbox)) if "code" in kinds else None
            self.opened = stack.pop_all()

    def __enter__(self) -> "Verifiers":
        """The verifiers themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends whatever they have started."""
        self.opened.close()

    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """The verdict on each answer (the text after the thought), in order.

        `draw` seeds the choice of `reward.max_test_cases` test cases, the same for all answers to a row; None runs
        all of them.
        """
        verdicts: list[Verdict | None] = [None] * len(answers)
        by_kind = {"exact": self.exact, "math": self.maths, "code": self.codes, "reasoning_gym": self.puzzles}
        for kind, verify in by_kind.items():
            places = [i for i, row in enumerate(rows) if kind_of(row) == kind]
            found = verify([answers[i] for i in places], [rows[i] for i in places], draw) if places else []
            for place, verdict in zip(places, found, strict=True):
                verdicts[place] = verdict
        return [verdict for verdict in verdicts if verdict is not None]

    def exact(self, answers: Sequence[str], rows: Sequence[Row], _: str | None) -> list[Verdict]:
        """The embedded math world."""
        right = [
            chain.verify(a, row["reward_model"]["ground_truth"]) for a, row in zip(answers, rows, strict=True)
        ]
        return [Verdict(float(r), "correct" if r else "wrong") for r in right]

    def maths(self, answers: Sequence[str], rows: Sequence[Row], _: str | None) -> list[Verdict]:
        """Real math problems."""
        assert self.math is not None
        pairs = [(a, str(row["reward_model"]["ground_truth"])) for a, row in zip(answers, rows, strict=True)]
        return [Verdict(float(verdict == CORRECT), verdict) for verdict in self.math.judge(pairs)]

    def puzzles(self, answers: Sequence[str], rows: Sequence[Row], _: str | None) -> list[Verdict]:
        """Problems of reasoning-gym, some of whose tasks give part of the score for a near miss."""
        assert self.gym is not None
        pairs = [(a, row["reward_model"]["ground_truth"]) for a, row in zip(answers, rows, strict=True)]
        return [puzzle_verdict(score) for score in self.gym.judge(pairs)]

    def codes(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """Programs, on their rows' test cases."""
        assert self.sandboxes is not None
        programs = [code.find_program(answer) for answer in answers]
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
        cases = code.choose_cases(tests.cases, most, f"{draw}-{row.get('id')}")
        return Job(program, cases, tests.seconds or self.reward.test_seconds, self.reward.test_memory_mb)


def read_row_tests(row: Row) -> code.Tests:
    """The tests of a code row. Raises `ConfigError` that names the row."""
    try:
        return code.read_tests(row["reward_model"]["ground_truth"])
    except (ValueError, SyntaxError, TypeError) as error:
        raise ConfigError(f"row {row.get('id')}: {error}") from error


def puzzle_verdict(score: float | None) -> Verdict:
    """A score of reasoning-gym as a verdict; None where there was none in time."""
    if score is None:
        return Verdict(0.0, "unparsable")
    return Verdict(score, "correct" if score == 1 else "wrong")


def code_verdict(results: Sequence[Any]) -> Verdict:
    """All of a program's tests in one verdict; the reason is that of the first test that didn't pass."""
    missed = [result.status for result in results if result.status != "passed"]
    reason = {"failed": "wrong"}.get(missed[0], missed[0]) if missed else "correct"
    return Verdict(code.share_passed(results), reason)
