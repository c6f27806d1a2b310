"""The sandbox's programs a second beside one plain process a program, and verifications of math answers."""

import json
import statistics
import time

import math_verifier
import sandbox

from bench_parts.figures import OURS, Figure
from bench_parts.work import Work

TITLE = "Programs of 16 tests, and math answers"
PLAIN, MATH_VERIFY = "one process a program", "math-verify"
THREADS = (1,)
WORKERS, TESTS = 2, 16
MOST_ANSWERS = 1900  # a worker is replaced after 2,000, which isn't to be timed


def measure_ours(work: Work) -> dict[str, float]:
    """Returns the seconds of a program in the sandbox, and of a math verification."""
    from klear_lab.verify.math import MATH
    from klear_lab.verify.processes import VerifierProcesses

    jobs = [sandbox.make_job(k, TESTS) for k in range(20 if work.small else 400)]
    sandbox.seconds.clear()
    sandbox.pooled(jobs, WORKERS)
    pairs = answers(work)
    with VerifierProcesses(MATH, 1, 10.0) as verifiers:
        verifiers.judge(pairs[:1])
        started = time.perf_counter()
        verifiers.judge(pairs)
        math_s = time.perf_counter() - started
    return {"program": sandbox.seconds[0] / len(jobs), "answer": math_s / len(pairs)}


def measure_plain(work: Work) -> dict[str, float]:
    """Returns the seconds of a program in a plain process of its own."""
    jobs = [sandbox.make_job(k, TESTS) for k in range(8 if work.small else 100)]
    sandbox.seconds.clear()
    sandbox.plain_program(jobs, WORKERS)
    return {"program": sandbox.seconds[0] / len(jobs)}


def measure_math_verify(work: Work) -> dict[str, float]:
    """Returns the seconds of an answer by math-verify alone, in this process."""
    pairs = [{"answer": a, "ground_truth": t} for a, t in answers(work)]
    math_verifier.judge_by_math_verify(pairs[:1])
    started = time.perf_counter()
    math_verifier.judge_by_math_verify(pairs)
    return {"answer": (time.perf_counter() - started) / len(pairs)}


SIDES = {OURS: measure_ours, PLAIN: measure_plain, MATH_VERIFY: measure_math_verify}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns both figures."""
    (sides,) = found.values()

    def beside(what: str, key: str, peer: str) -> Figure:
        values = {side: [1e3 * one[key] for one in sides[side]] for side in (OURS, peer)}
        return Figure(what, "ms", values, peer)

    program = beside("a program of 16 tests, two at a time", "program", PLAIN)
    program.at_most = 2.0  # 500 a second
    return [program, beside("a math answer, one process", "answer", MATH_VERIFY)]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Says the rates."""
    (sides,) = found.values()
    programs = 1 / statistics.median(one["program"] for one in sides[OURS])
    answered = 1 / statistics.median(one["answer"] for one in sides[OURS])
    return [f"That is {programs:.0f} programs and {answered:.0f} math answers a second."]


def answers(work: Work) -> list[tuple[str, str]]:
    """Returns answers with their ground truths."""
    pairs = [json.loads(line) for line in math_verifier.PAIRS.read_text().splitlines()]
    different = dict.fromkeys((pair["answer"], pair["ground_truth"]) for pair in pairs)  # ours judges each once
    return [*different][: 20 if work.small else MOST_ANSWERS]
