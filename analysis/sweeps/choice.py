"""Sums up each clip method of a sweep over many: score, entropy and stability, by which a reader chooses one.

A setting is what the sweep varies beside the method, for instance a learning rate and a mini-batch size. Each
method is shown at three settings: the first one in the sweep's file, the one at which the methods' mean is lowest
(the hardest), and the method's own best. The best is chosen for each seed by the method's mean over the other
seeds, because the highest of several means is too high when it is judged by the seeds that chose it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.arms import as_words, describe_arm, method_label
from analysis.draw.cells import interval_cell, number_cell, one_seed_note
from analysis.draw.table import DASH, Table
from analysis.statistics import Interval, mean_interval, share_interval
from analysis.sweeps.effects import final_score, late, mean
from analysis.sweeps.kept import KeptSweep
from analysis.sweeps.tables import arms_in_order

METHOD = "clip_method"
FEWEST_METHODS, FEWEST_SETTINGS = 6, 2  # fewer are seen at a glance in curves and maps
ENTROPY = "policy/entropy"


@dataclass(frozen=True)
class Summary:
    """Holds what a clip method did over the settings and seeds of a sweep.

    scores_CS: mean final score by setting (in the order of `Choice.settings`) and seed, NaN without a run.
    entropy_C: mean entropy of the last quarter of the steps, by setting, in nats. below, runs: how many runs ended
    below the score that they started from, and of how many.
    """

    method: str
    scores_CS: npt.NDArray[np.float64]
    entropy_C: npt.NDArray[np.float64]
    below: int
    runs: int

    @property
    def best(self) -> Interval:
        """Returns the score at the best setting, which the other seeds choose for each seed."""
        return interval_of(best_by_others(self.scores_CS))

    @property
    def best_setting(self) -> int | None:
        """Returns the place of the setting with the highest mean over all seeds; None without runs."""
        mean_C = means(self.scores_CS)
        return int(np.nanargmax(mean_C)) if np.isfinite(mean_C).any() else None

    def at(self, setting: int) -> Interval:
        """Returns the score at a setting."""
        return interval_of(self.scores_CS[setting])


@dataclass(frozen=True)
class Choice:
    """Holds the summaries of a sweep's methods, the best first; `hardest` is a place in `settings`."""

    settings: list[str]
    hardest: int
    summaries: list[Summary]
    start_entropy: float | None
    start_score: float | None
    seeds: int


def is_a_choice(kept: KeptSweep) -> bool:
    """Tells whether a sweep compares many methods at several settings, and has scores."""
    if METHOD not in kept.runs[0]["arm"] or all(final_score(run) is None for run in kept.runs):
        return False
    methods = {as_words(run["arm"].get(METHOD)) for run in kept.runs}
    return len(methods) >= FEWEST_METHODS and len(arms_in_order(kept, METHOD)) >= FEWEST_SETTINGS


def setting_of(run: Mapping[str, Any]) -> str:
    """Returns a run's setting, as `arms_in_order` names it."""
    return describe_arm({key: value for key, value in run["arm"].items() if key != METHOD})


def choice_of(kept: KeptSweep) -> Choice:
    """Sums up a sweep's methods."""
    settings = arms_in_order(kept, without=METHOD)
    seeds = sorted({run["seed"] for run in kept.runs})
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for run in kept.runs:
        by_method.setdefault(as_words(run["arm"][METHOD]), []).append(run)
    found = [summary_of(method, runs, settings, seeds) for method, runs in by_method.items()]
    found.sort(key=lambda one: (-np.nan_to_num(one.best.mean, nan=-1.0), one.method))
    starts = [values[0] for run in kept.runs if (values := run["curves"].get(ENTROPY)) and values[0] is not None]
    return Choice(
        settings=settings,
        hardest=hardest_of(np.array([means(one.scores_CS) for one in found])),
        summaries=found,
        start_entropy=mean(starts),
        seeds=len(seeds),
        start_score=mean([score for run in kept.runs if (score := start_score(run)) is not None]),
    )


def hardest_of(mean_MC: npt.NDArray[np.float64]) -> int:
    """Returns the place of the setting with the lowest mean over the methods.

    Methods that lack a setting don't count, unless all do: a weak one would make those that it has look hard.
    """
    whole_MC = mean_MC[np.isfinite(mean_MC).all(axis=1)]
    return int(np.nanargmin(means((whole_MC if len(whole_MC) else mean_MC).T)))


def summary_of(
    method: str, runs: Sequence[Mapping[str, Any]], settings: Sequence[str], seeds: Sequence[int]
) -> Summary:
    """Sums up the runs of one method."""
    scores_CS = np.full((len(settings), len(seeds)), np.nan)
    entropy_CS = np.full((len(settings), len(seeds)), np.nan)
    below = compared = 0
    for run in runs:
        place = settings.index(setting_of(run)), seeds.index(run["seed"])
        score, start, entropy = final_score(run), start_score(run), late(ENTROPY)(run)
        scores_CS[place] = np.nan if score is None else score
        entropy_CS[place] = np.nan if entropy is None else entropy
        if score is not None and start is not None:
            compared, below = compared + 1, below + (score < start)
    return Summary(method, scores_CS, means(entropy_CS), below, compared)


def start_score(run: Mapping[str, Any]) -> float | None:
    """Returns avg@n before the first step, mean over the run's benchmarks; None where that wasn't evaluated."""
    return mean([found["0"] for found in run["scores"].values() if "0" in found])


def best_by_others(scores_CS: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns each seed's score at the setting with the highest mean over the other seeds.

    NaN for a seed without a run at any setting that the others know. A seed that is alone chooses for itself.
    """
    seeds = scores_CS.shape[1]
    chosen_S = np.full(seeds, np.nan)
    for seed in range(seeds):
        others = [other for other in range(seeds) if other != seed] or [seed]
        mean_C = means(scores_CS[:, others])
        mean_C = np.where(np.isfinite(scores_CS[:, seed]), mean_C, np.nan)
        if np.isfinite(mean_C).any():
            chosen_S[seed] = scores_CS[int(np.nanargmax(mean_C)), seed]
    return chosen_S


def interval_of(x_S: npt.NDArray[np.float64]) -> Interval:
    """Returns the mean and interval of the seeds that have a score."""
    return mean_interval(x_S[np.isfinite(x_S)])


def means(values_CS: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the mean of each row over what is finite, NaN where nothing is."""
    return np.array([x_S[np.isfinite(x_S)].mean() if np.isfinite(x_S).any() else np.nan for x_S in values_CS])


def choice_table(kept: KeptSweep) -> Table:
    """Gives each method's score at three settings, its entropy at two, and how many runs lost by RL."""
    choice = choice_of(kept)
    rows = []
    for one in choice.summaries:
        best = one.best_setting
        rows.append(
            [
                method_label(one.method),
                interval_cell(one.at(0)),
                interval_cell(one.best),
                DASH if best is None else choice.settings[best],
                interval_cell(one.at(choice.hardest)),
                number_cell(None if best is None else one.entropy_C[best]),
                number_cell(one.entropy_C[choice.hardest]),
                below_cell(one),
            ]
        )
    chosen = (
        "The best setting of a seed is chosen by the other seeds; the one that is named is chosen by all."
        if choice.seeds > 1
        else "One seed chooses its own best setting, whose score is too high for that." + one_seed_note([1])
    )
    words = [
        "Final scores, mean of benchmarks, mean ± half-width of the 95 % t-interval over seeds, at the first "
        f"setting ({choice.settings[0]}), at each method's best and at the hardest "
        f"({choice.settings[choice.hardest]}), where the methods' mean is lowest.",
        chosen,
        "Entropy: nats, mean of the last quarter of the steps. Fell below start: runs of all settings that ended "
        "below the score before RL, with Wilson's interval of their share.",
    ]
    if choice.start_score is not None:
        words.append(f"Before RL the score is {choice.start_score:.3f}.")
    header = [
        ("", "method"),
        *(("score", name) for name in ("first", "best", "its setting", "hardest")),
        *(("entropy", name) for name in ("best", "hardest")),
        ("", "fell below start"),
    ]
    return Table(f"{kept.about['sweep']}_choice", " ".join(words), header, rows)


def below_cell(one: Summary) -> str:
    """Prints how many runs ended below their start, with Wilson's interval of the share."""
    if not one.runs:
        return DASH
    _, low, high = share_interval(one.below, one.runs)
    return f"{one.below} of {one.runs} [{low:.0%}, {high:.0%}]"
