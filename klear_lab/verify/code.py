"""Verifies programs by running them on their rows' test cases, in the sandbox."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from klear_lab.config import ConfigError, RewardConfig
from klear_lab.rows import Row
from klear_lab.sandbox.cases import CaseResult, Job
from klear_lab.sandbox.pool import SandboxPool
from klear_lab.verify.code_tests import Tests, choose_cases, read_tests, share_passed
from klear_lab.verify.program import find_program
from klear_lab.verify.registry import Verdict, Verifier, VerifierSettings, verifier


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
