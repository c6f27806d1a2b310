"""Says which claim an hour of runs would settle best: open claims, by the run time until each is settled.

    python -m analysis next [--runs DIR] [--jobs N]

Seeds to go are those after which evidence that stays valid under looking settles the claim, if its effect and
spread stay as they look now; a guess, and a poor one from three seeds. Minutes are those that earlier runs took.
"""

import argparse
from collections.abc import Sequence
from functools import partial

from analysis.claims.judge import judge_claims, sweeps_at_hand
from analysis.claims.multiple_testing import INCONCLUSIVE
from analysis.commands.messages import explained_in_a_line, note_caveats
from analysis.commands.source import (
    add_jobs_argument,
    add_results_argument,
    add_source_arguments,
    load_source,
    results_of,
)
from analysis.draw.cells import number_cell
from analysis.draw.table import DASH, Table, to_markdown
from analysis.runs.damage import without_damaged
from analysis.settle.loop import MOST_SEEDS, OPEN, time_to_go
from analysis.settle.outlook import Outlook, outlook, tests_of_all
from analysis.settle.targets import target_of
from analysis.statistics import has_spread
from analysis.sweeps.kept import named_caveats


@explained_in_a_line
def main(argv: Sequence[str]) -> int:
    """Prints the open claims, the nearest to its verdict first; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis next", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source_arguments(parser)
    add_results_argument(parser)
    add_jobs_argument(parser)
    arguments = parser.parse_args(argv)
    results = results_of(parser, arguments)
    sweeps = without_damaged(load_source(parser, arguments), partial(sweeps_at_hand, kept=results))
    found, tested = [], tests_of_all(sweeps)
    for judged in judge_claims(sweeps):
        if judged.verdict.verdict in OPEN:
            own = sweeps[judged.claim.sweep][0] if judged.claim.sweep in sweeps else None
            found.append(outlook(target_of(judged.claim), tested, own, judged.claim.margin))
    found.sort(key=time_to_go)
    note_caveats(named_caveats(kept for kept, _ in sweeps.values()))
    print(said(found, arguments.jobs))
    print()
    print(to_markdown(next_table(found, arguments.jobs)))
    return 0


def said(found: Sequence[Outlook], jobs: int) -> str:
    """Says what to do with the next hour."""
    if not found:
        return "Every claim is settled."
    first, minutes = found[0], found[0].minutes_to_go
    name = first.target.claim.id
    if minutes is None:
        return f"No claim with an effect is open; runs of {name} are still to be made: {command(first)}"
    time = f"about {max(1, round(minutes / jobs))} minutes with {jobs} at a time"
    if minutes / jobs <= 60:
        return f"An hour would settle {name} best ({time}): {command(first)}"
    return f"An hour settles no claim; {name} is nearest ({time}): {command(first)}"


def next_table(found: Sequence[Outlook], jobs: int) -> Table:
    """Lists the open claims with what each still takes."""
    rows = [
        [
            one.target.claim.id,
            one.target.claim.statement,
            number_cell(float(one.effects.mean()), signed=True) if len(one.effects) else DASH,
            str(len(one.effects)),
            to_go_cell(one),
            DASH if one.minutes is None else f"{one.minutes:.1f}",
            DASH if one.minutes_to_go is None else f"{one.minutes_to_go / jobs:.0f}",
            command(one),
        ]
        for one in found
    ]
    names = (
        "Claim",
        "The paper says",
        "Effect",
        "Seeds",
        "Seeds to go",
        "Minutes a seed",
        "Minutes to go",
        "Command",
    )
    caption = (
        f"Open claims by the time until each is settled, {jobs} runs at a time; minutes a seed are of run time."
    )
    return Table("next", caption, [("", name) for name in names], rows)


def to_go_cell(one: Outlook) -> str:
    """Prints the seeds to go; "over 1000" where the effect is too small beside its spread, a dash without one."""
    if one.to_go is not None:
        return str(one.to_go)
    return "over 1000" if one.verdict == INCONCLUSIVE and has_spread(one.effects.to_numpy()) else DASH


def command(one: Outlook) -> str:
    """Returns the command that settles the claim, which names the seeds where they are more than it would add."""
    seeds = f" --seeds {one.in_all}" if one.in_all is not None and one.in_all > MOST_SEEDS else ""
    return f"python -m klear_lab.settle {one.target.claim.id}{seeds}"
