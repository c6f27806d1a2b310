"""Tells from which seeds SFT converged, by its loss alone, and what that makes of an arm's scores.

A tiny model learns the traces of an embedded world late and all at once; from some seeds it doesn't within its
steps, and its score then says more of the seed than of the arm. The rule looks at no score. A run's loss is the
mean over the last tenth of the logged steps. Of the six tokens of a step in the math world one is the operand,
read off the problem, and one the result, a fact; guessing a digit costs log(10) = 2.3 nats, so each tenth of the
operands or results that is guessed adds 0.04 nats a token. SFT converged where the loss lies at most EXCESS = 0.04
above the lowest of the arm's seeds. There is no absolute bound, because wrong and broken rows cost nats that no
policy can learn: the best seed of an arm has the same ones in it. So the rule can't see that no seed of an arm
learned, and says nothing of an arm with one seed. docs/worlds.md has how it came about, and what it finds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.arms import describe_arm
from analysis.draw.cells import interval_cell, number_cell
from analysis.draw.table import DASH, NO_BREAK, Table
from analysis.statistics import mean_interval, share_interval
from analysis.sweeps.effects import final_score
from analysis.sweeps.kept import KeptSweep
from analysis.sweeps.tables import arms_in_order

Run = Mapping[str, Any]
EXCESS = 0.04  # nats a token
LAST = 0.1  # share of the logged SFT losses that the rule averages


def final_sft_loss(run: Run) -> float | None:
    """Returns the mean SFT loss of the last tenth of the logged steps; None where none was kept."""
    losses = run.get("sft_loss") or []
    return float(np.mean(losses[-max(1, round(LAST * len(losses))) :])) if losses else None


def converged(runs: Sequence[Run]) -> list[Run]:
    """Returns those runs of one arm whose SFT converged; runs without a kept loss are left out."""
    losses = [final_sft_loss(run) for run in runs]
    bound = EXCESS + min((loss for loss in losses if loss is not None), default=0.0)
    return [run for run, loss in zip(runs, losses, strict=True) if loss is not None and loss <= bound]


def has_sft_of_its_own(kept: KeptSweep) -> bool:
    """Tells whether a sweep's runs are of several SFTs with a kept loss: most RL sweeps start all from one."""
    return len({str(run["sft_loss"]) for run in kept.runs if run.get("sft_loss") and run["scores"]}) > 1


def convergence_table(kept: KeptSweep) -> Table:
    """Gives each arm's share of seeds whose SFT converged, and its score over all seeds and over those alone."""
    rows = []
    for arm in arms_in_order(kept):
        runs = [run for run in kept.runs if describe_arm(run["arm"]) == arm and final_sft_loss(run) is not None]
        rows.append([arm, *convergence_cells(runs)])
    names = ("arm", "converged", "share", "SFT loss", "score, all seeds", "score, converged seeds")
    words = (
        f"SFT converged where its loss over the last tenth of the steps is at most {EXCESS:g} nats a token above "
        "the lowest of the arm: a rule that looks at no score. Share with its 95 % Wilson interval; lowest and "
        "highest loss; final avg@n (mean of the benchmarks) with 95 % t-intervals over seeds. Claims are judged "
        "on all seeds; the last column chooses seeds by what SFT made of them, so it compares no arms."
    )
    return Table(f"{kept.about['sweep']}_convergence", words, [("", name) for name in names], rows)


def convergence_cells(runs: Sequence[Run]) -> list[str]:
    """Prints one arm's row; dashes where no loss was kept."""
    if not runs:
        return [DASH] * 5
    found = converged(runs)
    share, low, high = share_interval(len(found), len(runs))
    losses = [loss for run in runs if (loss := final_sft_loss(run)) is not None]
    scores = [
        mean_interval([score for run in own if (score := final_score(run)) is not None]) for own in (runs, found)
    ]
    return [
        f"{len(found)} of {len(runs)}",
        f"{number_cell(share, 2)} [{number_cell(low, 2)},{NO_BREAK}{number_cell(high, 2)}]",
        f"{number_cell(min(losses))} to {number_cell(max(losses))}",
        *map(interval_cell, scores),
    ]
