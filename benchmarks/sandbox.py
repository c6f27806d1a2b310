"""How many programs the sandbox judges in a second, against plain processes without any isolation.

    python benchmarks/sandbox.py [--programs 400] [--tests 16] [--workers 2] [--repeats 5]

Each program has `tests` test cases. Four ways to run them, `workers` side by side, interleaved within each repeat:

    sandbox, fresh      a sandbox started for each program
    sandbox, pool       what a run uses: a sandbox serves programs until one leaves it unclean
    plain, a program    one `python` process a program, which executes all tests in itself
    plain, a test       one `python` process a test

All programs differ, and all are right; the two kinds of test (standard input, calls) take turns. Then how long a
million lines take to compare with expected ones that differ in the last, in every line's end, or in its writing.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from klear_lab.sandbox.isolation import find_isolation
from klear_lab.sandbox.output_matching import texts_match
from klear_lab.sandbox.pool import Job, SandboxPool

READS = "import sys\nn = int(sys.stdin.readline())\nprint(sum(i * i for i in range(n)) + {k})\n"
CALLED = "def f(n: int) -> int:\n    return sum(i * i for i in range(n)) + {k}\n"
HARNESS = """
import io, json, sys
program, tests = json.load(sys.stdin)
code = compile(program, "program.py", "exec")
for test in tests:
    sys.stdin, sys.stdout, names = io.StringIO(test.get("stdin", "")), io.StringIO(), {"__name__": "__main__"}
    exec(code, names)
    given = sys.stdout.getvalue().strip() if "stdin" in test else names[test["call"]](*test["args"])
    assert given == test.get("expected_stdout", test.get("expected")), given
"""


def make_job(k: int, tests: int) -> Job:
    """The `k`-th program."""
    values = [sum(i * i for i in range(n)) + k for n in range(tests)]
    if k % 2:
        cases = [{"stdin": f"{n}\n", "expected_stdout": str(v)} for n, v in enumerate(values)]
    else:
        cases = [{"call": "f", "args": [n], "expected": v} for n, v in enumerate(values)]
    return Job((READS if k % 2 else CALLED).format(k=k), cases)


def pooled(jobs: list[Job], workers: int) -> None:
    """The sandbox as a run uses it, without its first start."""
    with SandboxPool(workers) as pool:
        pool.run([Job(f"print({k})", [{"stdin": "", "expected_stdout": str(k)}]) for k in range(workers)])
        started = time.perf_counter()
        results = pool.run(jobs)
        seconds.append(time.perf_counter() - started)
    assert all(r.status == "passed" for one in results for r in one)


def fresh(jobs: list[Job], workers: int) -> None:
    """A sandbox a program."""

    def run(job: Job) -> None:
        with SandboxPool(1) as pool:
            assert all(r.status == "passed" for r in pool.run([job])[0])

    timed(run, jobs, workers)


def plain_program(jobs: list[Job], workers: int) -> None:
    """One process a program."""

    def run(job: Job) -> None:
        content = json.dumps([job.program, list(job.tests)])
        subprocess.run([sys.executable, "-I", "-c", HARNESS], input=content, text=True, check=True)

    timed(run, jobs, workers)


def plain_test(jobs: list[Job], workers: int) -> None:
    """One process a test."""

    def run(job: Job) -> None:
        for test in job.tests:
            content = json.dumps([job.program, [test]])
            subprocess.run([sys.executable, "-I", "-c", HARNESS], input=content, text=True, check=True)

    timed(run, jobs, workers)


def timed(run: Callable[[Job], None], jobs: list[Job], workers: int) -> None:
    """Runs the jobs in threads and notes the seconds."""
    with ThreadPoolExecutor(workers) as threads:
        started = time.perf_counter()
        list(threads.map(run, jobs))
        seconds.append(time.perf_counter() - started)


def start_up() -> None:
    """From nothing to the result of a first program."""
    started = time.perf_counter()
    with SandboxPool(1) as pool:
        pool.run([Job("print(1)", [{"stdin": "", "expected_stdout": "1"}])])
    seconds.append(time.perf_counter() - started)


def compare_texts() -> dict[str, float]:
    """Seconds for each way in which a million lines can differ from what is expected."""
    lines = "\n".join(map(str, range(1_000_000)))
    pairs = {
        "the last line differs": (f"{lines}\n1", f"{lines}\n2"),
        "an empty line before all": (f"\n{lines}\n1", f"{lines}\n2"),
        "a space after each": (lines.replace("\n", " \n"), lines),
        "each a float": (lines.replace("\n", ".0\n"), lines),
    }
    found = {}
    for name, (output, expected) in pairs.items():
        started = time.perf_counter()
        texts_match(output, expected)
        found[name] = time.perf_counter() - started
    return found


seconds: list[float] = []  # of the last measurements; each way appends one


def main() -> None:
    """Prints one line a way: median and range over the repeats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("programs", 400), ("tests", 16), ("workers", 2), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    a = parser.parse_args()
    jobs = [make_job(k, a.tests) for k in range(a.programs)]
    few = jobs[: max(1, a.programs // 8)]  # of the slow ways
    ways = {
        "sandbox, pool": (pooled, jobs),
        "plain, a program": (plain_program, jobs),
        "sandbox, fresh": (fresh, few),
        "plain, a test": (plain_test, few[: max(1, len(few) // 4)]),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    starts = []
    for _ in range(a.repeats):
        for name, (way, mine) in ways.items():
            seconds.clear()
            way(mine, a.workers)
            rates[name].append(len(mine) / seconds[0])
        seconds.clear()
        start_up()
        starts.append(seconds[0])
    print(f"{platform.machine()}, Python {platform.python_version()}, isolation: {find_isolation().name}")
    print(f"{a.programs} programs of {a.tests} tests, {a.workers} side by side, {a.repeats} repeats\n")
    print(f"{'':18}{'programs/s (range)':>24}{'tests/s':>10}{'of plain, a program':>22}")
    base = statistics.median(rates["plain, a program"])
    for name, found in rates.items():
        middle = statistics.median(found)
        spread = f"{middle:.0f} ({min(found):.0f} to {max(found):.0f})"
        print(f"{name:18}{spread:>24}{middle * a.tests:>10.0f}{middle / base:>22.2f}")
    print(f"\nfirst result of a new sandbox: {statistics.median(starts) * 1e3:.0f} ms")
    print(
        "a million lines compared:", ", ".join(f"{name} {s * 1e3:.0f} ms" for name, s in compare_texts().items())
    )


if __name__ == "__main__":
    main()
