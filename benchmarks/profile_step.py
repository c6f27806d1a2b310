"""Where an RL step of ours goes: the operations that take most of its sampling and of its training.

    python benchmarks/profile_step.py [--work FOLDER] [--rows 15] [--warm-up 6]

Profiles one step of the default run, as `bench.py --parts rl_step` takes it, on one thread. An operation's seconds
are its own, without the operations that it calls; Python is what no operation of torch took. The profiler makes
small operations and Python look slower than they are, so go by the order.
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # this checkout's packages, installed or not

import torch  # noqa: E402
from bench_parts.our_step import KEEP_ALL, OurSteps  # noqa: E402
from bench_parts.work import Work  # noqa: E402
from torch.profiler import ProfilerActivity, profile, record_function  # noqa: E402

from klear_lab.sampling.transformers import TransformersSampler  # noqa: E402

STEP, SAMPLING, TRAINING = "the step", "sampling", "training"
PYTHON = "Python"


def profiled(work: Work, warm_up: int) -> dict[str, Counter[str]]:
    """Returns the seconds of each operation in a step's sampling, and in all that comes after it."""
    config = work.composed("clip_method=gppo", KEEP_ALL)
    steps = OurSteps(config, work.policy(config), work.rows("rl.jsonl"))
    for _ in range(warm_up):
        steps.step()
    own = TransformersSampler.sample

    def sample(*given: Any) -> Any:
        with record_function(SAMPLING):
            return own(*given)

    activities = [ProfilerActivity.CPU]
    with (
        patch.object(TransformersSampler, "sample", sample),
        profile(activities=activities) as found,
        record_function(STEP),
    ):
        steps.step()
    return by_part(found.events())


def by_part(events: Any) -> dict[str, Counter[str]]:
    """Adds up the seconds of a profile's events, by part of the step and operation."""
    (sampling,) = [event.time_range for event in events if event.name == SAMPLING]
    seconds: dict[str, Counter[str]] = {SAMPLING: Counter(), TRAINING: Counter()}
    for event in events:
        part = SAMPLING if sampling.start <= event.time_range.start < sampling.end else TRAINING
        name = PYTHON if event.name in (STEP, SAMPLING) else event.name
        seconds[part][name] += event.self_cpu_time_total / 1e6
    return seconds


def table(seconds: dict[str, Counter[str]], rows: int) -> str:
    """Returns Markdown with the operations that take most of the whole step."""
    totals = {part: own.total() for part, own in seconds.items()}
    heads = " | ".join(f"{part}, {total:.2f} s" for part, total in totals.items())
    lines = [f"| operation | {heads} |", "|---|---:|---:|"]
    for name, _ in (seconds[SAMPLING] + seconds[TRAINING]).most_common(rows):
        shares = " | ".join(f"{own[name] / totals[part]:.1%}" for part, own in seconds.items())
        lines.append(f"| {name} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="a folder of bench.py's --work (default: made anew)")
    parser.add_argument("--rows", type=int, default=15, help="operations to show (default: 15)")
    parser.add_argument("--warm-up", type=int, default=6, help="steps before the profiled one (default: 6)")
    parser.add_argument("--small", action="store_true", help="sizes of a test, whose numbers mean nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        work = Work(given.work or Path(temporary), 1, given.small)
        work.prepare()
        print(table(profiled(work, given.warm_up), given.rows))


if __name__ == "__main__":
    main()
