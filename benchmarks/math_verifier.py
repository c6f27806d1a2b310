r"""How often the math verifier errs, beside plain math-verify and string match: the table in docs/rewards.md.

    python benchmarks/math_verifier.py [--pairs tests/klear_lab/verify/math_pairs.jsonl] [--seconds 10] [--kinds]

Each line of the file is a ground truth, an answer, whether a careful reader would say that it is right, and the
kind of mistake that it tries. Ours runs as training runs it, in processes with a time limit. Plain math-verify is
`verify(parse(r"\boxed{ground truth}"), parse(answer))` with all of its defaults; string match compares what stands
in the last box. A false positive is a wrong answer that is paid, a false negative a right one that isn't.
"""

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from klear_lab.verify.math import CORRECT, MATH
from klear_lab.verify.mathematics.answers import boxes
from klear_lab.verify.processes import VerifierProcesses

PAIRS = Path(__file__).parents[1] / "tests" / "klear_lab" / "verify" / "math_pairs.jsonl"
Pair = dict[str, Any]


def judge_ours(pairs: Sequence[Pair], seconds: float) -> list[bool]:
    """Which answers our verifier pays. Prints what it costs."""
    with VerifierProcesses(MATH, 1, seconds) as verifiers:
        slowest = 0.0
        paid = []
        started = time.perf_counter()
        for pair in pairs:
            before = time.perf_counter()
            paid += [verifiers.judge([(pair["answer"], pair["ground_truth"])])[0] == CORRECT]
            slowest = max(slowest, time.perf_counter() - before)
        total = time.perf_counter() - started
    print(
        f"{len(pairs)} verifications in {total:.1f} s, the slowest in {slowest:.2f} s of {seconds:g} s allowed\n"
    )
    return paid


def judge_by_math_verify(pairs: Sequence[Pair]) -> list[bool]:
    """Which answers math-verify pays with its defaults."""
    from math_verify import parse, verify

    logging.disable(logging.WARNING)
    return [verify(parse(rf"\boxed{{{p['ground_truth']}}}"), parse(p["answer"])) for p in pairs]


def judge_by_string(pairs: Sequence[Pair]) -> list[bool]:
    """Which answers are the ground truth's text, in the last box or, without one, alone."""
    return [([p["answer"], *boxes(p["answer"])][-1]).strip() == p["ground_truth"].strip() for p in pairs]


def errors(pairs: Sequence[Pair], paid: Sequence[bool]) -> tuple[int, int]:
    """How many wrong answers are paid, and how many right ones aren't."""
    false_positives = sum(p and not pair["right"] for pair, p in zip(pairs, paid, strict=True))
    false_negatives = sum(pair["right"] and not p for pair, p in zip(pairs, paid, strict=True))
    return false_positives, false_negatives


def share(count: int, of: int) -> str:
    """A count with its per cent."""
    return f"{count} ({100 * count / of:.1f} %)" if of else "-"


def main() -> None:
    """Prints the table as Markdown."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--pairs", type=Path, default=PAIRS)
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--kinds", action="store_true", help="a row for each kind of pair")
    a = arguments.parse_args()
    pairs = [json.loads(line) for line in a.pairs.read_text().splitlines()]
    verifiers: dict[str, Callable[[], list[bool]]] = {
        "ours": lambda: judge_ours(pairs, a.seconds),
        "math-verify, defaults": lambda: judge_by_math_verify(pairs),
        "exact string match": lambda: judge_by_string(pairs),
    }
    paid = {name: judge() for name, judge in verifiers.items()}
    right = sum(pair["right"] for pair in pairs)
    print(f"| verifier | false positives of {len(pairs) - right} wrong | false negatives of {right} right |")
    print("| --- | ---: | ---: |")
    for name, verdicts in paid.items():
        found = errors(pairs, verdicts)
        print(f"| {name} | {share(found[0], len(pairs) - right)} | {share(found[1], right)} |")
    if a.kinds:
        print_kinds(pairs, paid)


def print_kinds(pairs: Sequence[Pair], paid: dict[str, list[bool]]) -> None:
    """The errors of each verifier in each kind of pair, false positives / false negatives."""
    print("\n| kind | wrong, right | " + " | ".join(paid) + " |")
    print("| --- | ---: |" + " ---: |" * len(paid))
    for kind in dict.fromkeys(pair["kind"] for pair in pairs):
        at = [i for i, pair in enumerate(pairs) if pair["kind"] == kind]
        of = [pairs[i] for i in at]
        cells = ["{} / {}".format(*errors(of, [verdicts[i] for i in at])) for verdicts in paid.values()]
        right = sum(pair["right"] for pair in of)
        print(f"| {kind} | {len(of) - right}, {right} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
