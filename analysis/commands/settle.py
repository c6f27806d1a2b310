"""Adds seeds in batches, both arms paired, until a claim is supported, contradicted, equal, or a budget is spent.

    python -m klear_lab.settle C7                                    # a claim
    python -m klear_lab.settle figure2 --hours 2                     # all claims of a sweep
    python -m klear_lab.settle clip_method=gppo clip_method=cispo    # any two arms: does the first end higher?
    python -m klear_lab.settle --all --hours 8                       # all claims, the nearest to a verdict first
    python -m klear_lab.settle C7 --live                             # one about clip methods, where clipping acts

One may stop it at any time and look at any time: the verdict's error rate is the report's, however often one looks
(docs/analysis.md). The same command goes on where it was stopped. Kept results count as the first look where
today's settings would make the same runs. Exit status: 0 when every claim is settled, 3 when a budget ended it
before.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from analysis.commands.messages import explained_in_a_line
from analysis.commands.source import DEFAULT_RUNS, add_jobs_argument, add_results_argument, count, results_of
from analysis.settle.live import targets_where_live
from analysis.settle.loop import MOST_SEEDS, Budget, Settling
from analysis.settle.targets import targets_of

BUDGET_SPENT = 3


@explained_in_a_line
def main(argv: Sequence[str]) -> int:
    """Settles the claims that the arguments name; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m klear_lab.settle",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="CLAIM", help="a claim, a sweep, or two arms")
    parser.add_argument("--all", action="store_true", help="every claim that needs runs")
    parser.add_argument(
        "--live", action="store_true", help="claims about clip methods: at the setting where clipping acts"
    )
    parser.add_argument(
        "--hours", type=positive, help="no batch is started that wouldn't end within them, as earlier runs tell"
    )
    parser.add_argument(
        "--seeds", type=count, default=MOST_SEEDS, help="the most seeds of a claim (default: %(default)s)"
    )
    parser.add_argument("--batch", type=count, help="seeds at a time (default: one for each job)")
    add_jobs_argument(parser)
    parser.add_argument(
        "--margin", type=positive, help="arms closer than this count as equal, where a claim has none"
    )
    parser.add_argument(
        "--with",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        dest="extra",
        help="settings of all runs, as for a run",
    )
    parser.add_argument("--runs", type=Path, metavar="DIR", default=DEFAULT_RUNS, help="folder of the run folders")
    add_results_argument(parser)
    arguments = parser.parse_args(argv)
    if arguments.runs.exists() and not arguments.runs.is_dir():
        parser.error(f"--runs {arguments.runs}: not a folder")
    results = results_of(parser, arguments)
    budget = Budget(arguments.seeds, arguments.hours, arguments.batch, arguments.jobs)
    targets = targets_of(arguments.names, arguments.all, arguments.extra)
    if arguments.live:
        targets = targets_where_live(targets, arguments.runs, results)
    settling = Settling(
        targets, arguments.runs, results, budget, arguments.margin, lambda line: print(line, flush=True)
    )
    found = settling.run()
    print()
    for one in found:
        name = one.target.claim.id
        ended = f"not settled: {settling.ended[name]}" if name in settling.ended else one.verdict
        print(f"{name}, {one.target.claim.statement}: {ended}")
    return BUDGET_SPENT if settling.ended else 0


def positive(word: str) -> float:
    """Returns a finite number above 0, for argparse."""
    value = float(word)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{word}: must be above 0")
    return value
