"""The RL filter: keeps prompts whose answer or tests a strong model doesn't contradict (paper, section 3.2.1).

A row notes how many `completions` a strong model wrote for it and how many `passed` its verifier. A math row stays
if a majority passed. A code row stays if it has at least 16 test cases and its estimated pass@16 is above 0.5: if
a strong model can't pass the tests in 16 tries, they are probably faulty.
"""

from math import comb

from klear_lab.rows import Row
from klear_lab.verify.registry import verifier_of

K = 16


def why_not(row: Row, minimum_tests: int) -> str | None:
    """Returns why a row leaves, or None if it stays. One that no model tried leaves only for few test cases."""
    test_cases = verifier_of(row).count_test_cases(row)
    if test_cases is not None and test_cases < minimum_tests:
        return f"fewer than {minimum_tests} test cases"
    if not row.get("completions"):
        return None
    n, passed = row["completions"], row["passed"]
    if test_cases is not None:
        return f"estimated pass@{K} of at most 0.5" if pass_at_k(n, passed, K) <= 0.5 else None
    return "no majority of completions passed" if 2 * passed <= n else None


def pass_at_k(n: int, passed: int, k: int) -> float:
    """Estimates, without bias, the probability of passing at least once in k tries (Chen et al. 2021, Eq. 1).

    `passed` of n tries passed. With fewer than k tries it takes the n there are, which gives a lower bound.
    """
    k = min(k, n)
    return 1.0 - comb(n - passed, k) / comb(n, k) if k else 0.0
