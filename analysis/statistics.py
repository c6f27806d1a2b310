"""Computes means over seeds, intervals and paired differences, by pure functions that read and draw nothing.

Axes: R runs, S seeds, T steps. Scores are shares between 0 and 1. The unit of repetition is the seed: prompts
and samples are averaged within a run first, because responses of one run share its weights and are no
independent repeats. Intervals are 95 % t-intervals (Student, S - 1 degrees of freedom). They assume seeds to
be independent draws of a roughly normal quantity, may reach past 0 or 1, and are not corrected for the number
of comparisons.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy  # whose parts are imported where they are first used: scipy.stats alone takes a second

from analysis.errors import NotComparableError

CONFIDENCE = 0.95
# Values closer together are equal but for rounding: kept scores have five digits, so differences of two arms that
# are the same in every seed lie up to 2e-5 apart.
ROUNDING = 2.5e-5
SHOWN = 4  # names in a message


class Interval(NamedTuple):
    """Holds mean +- half_width over `seeds` values; for one seed half_width is NaN, for none both are."""

    mean: float
    half_width: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Tells whether all of it lies on one side of 0. Values without any spread leave nothing to judge by."""
        return self.half_width > 0 and abs(self.mean) > self.half_width


def has_spread(x_S: npt.NDArray[np.float64]) -> bool:
    """Tells whether values over seeds differ by more than rounding."""
    return x_S.size > 1 and bool(spread_so_far(x_S)[-1])


def spread_so_far(x_S: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tells of the first N = 1, 2, ... values along the last axis whether they differ by more than rounding."""
    high_N, low_N = np.maximum.accumulate(x_S, axis=-1), np.minimum.accumulate(x_S, axis=-1)
    return np.asarray(high_N - low_N > ROUNDING)


def mean_interval(values_S: npt.ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Returns the mean and t-interval of S values: half-width t(S-1) * s / sqrt(S), s with denominator S - 1.

    One value has no spread, hence no interval (NaN). S values that are equal but for rounding give half-width 0:
    they show no spread, which is not the same as there being none. Raises ValueError for NaN or infinite values:
    callers decide about those.
    """
    x_S = np.asarray(values_S, dtype=float)
    if not np.isfinite(x_S).all():
        raise ValueError(f"values over seeds must be finite, got {x_S.tolist()}")
    if x_S.size < 2:
        return Interval(float(x_S[0]) if x_S.size else np.nan, np.nan, x_S.size)
    spread = float(x_S.std(ddof=1)) if has_spread(x_S) else 0.0
    t = float(t_quantile(confidence, x_S.size - 1))
    return Interval(float(x_S.mean()), t * spread / np.sqrt(x_S.size), x_S.size)


def t_quantile(confidence: float, degrees: npt.ArrayLike) -> Any:
    """Returns how many standard errors a two-sided t-interval reaches: what scipy.stats.t.ppf takes it from."""
    return scipy.special.stdtrit(degrees, (1 + confidence) / 2)


def share_interval(found: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Returns a share with Wilson's interval, which stays within 0 and 1 and has a width at 10 of 10 too.

    Raises ValueError for a share of nothing.
    """
    low, high = scipy.stats.binomtest(found, of).proportion_ci(confidence, method="wilson")
    return found / of, float(low), float(high)


def paired_difference(a_S: pd.Series, b_S: pd.Series, confidence: float = CONFIDENCE) -> Interval:
    """Returns the interval of a - b over the seeds (the index) that both have.

    It is paired, because arms of one seed share prompts, their order and the sampling seeds: what the seed does to
    both cancels.
    """
    shared = a_S.index.intersection(b_S.index)
    # differences of equal decimals leave a residue of 1e-17; twelve decimals are far below one response's
    # weight
    return mean_interval(np.round(a_S.loc[shared] - b_S.loc[shared], 12), confidence)


def right_by_prompt(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Counts right samples by run, benchmark, step and prompt: columns those four, right, samples; in their order.

    Raises NotComparableError where a response (these four and `sample`) stands twice: it would count double.
    """
    keys = ["run_id", "benchmark", "step", "prompt_id", "sample"]
    factors = [pd.factorize(evaluations[key], sort=True) for key in keys]
    shape = [max(1, len(values)) for _, values in factors]
    response_N = np.ravel_multi_index([code_N for code_N, _ in factors], shape)
    order_N = np.argsort(response_N, kind="stable")  # files are sorted nearly: quick
    response_N = response_N[order_N]
    twice = np.flatnonzero(response_N[1:] == response_N[:-1])
    if twice.size:
        words = ", ".join(f"{key} {evaluations[key].iloc[order_N[twice[0]]]}" for key in keys)
        raise NotComparableError(f"one response stands twice: {words}")
    prompt_N = response_N // shape[-1]
    start_C = np.flatnonzero(np.diff(prompt_N, prepend=-1))
    codes = np.unravel_index(prompt_N[start_C], shape[:-1])
    own = zip(keys[:-1], factors[:-1], codes, strict=True)
    columns = {key: values.take(code_C) for key, (_, values), code_C in own}
    right_C = np.add.reduceat(evaluations["correct"].to_numpy(dtype=float)[order_N], start_C)
    return pd.DataFrame({**columns, "right": right_C, "samples": np.diff(start_C, append=len(response_N))})


def scores(evaluations: pd.DataFrame) -> pd.DataFrame:
    """Computes avg@n of each run, benchmark and step: `correct` averaged over a prompt's samples, then prompts.

    Columns run_id, benchmark, step, score, prompts, samples (n). Raises NotComparableError where prompts have
    unequal n, since avg@n then has no one n, and as `right_by_prompt`.
    """
    keys = ["run_id", "benchmark", "step"]
    per_prompt = right_by_prompt(evaluations)
    groups = per_prompt.assign(share=per_prompt["right"] / per_prompt["samples"]).groupby(keys)
    out = groups.agg(
        score=("share", "mean"), prompts=("share", "size"), samples=("samples", "max"), fewest=("samples", "min")
    )
    uneven = out[out["samples"] != out["fewest"]]
    if not uneven.empty:
        raise NotComparableError(
            f"prompts with unequal numbers of samples in (run, benchmark, step) {uneven.index[0]}"
        )
    return out.drop(columns="fewest").reset_index()


def last_common_step(scores_RT: pd.DataFrame) -> int:
    """Returns the last step at which every run has every benchmark, since scores of different steps don't compare.

    Raises NotComparableError where there is none.
    """
    cells = scores_RT.groupby("step").size()
    full = scores_RT["run_id"].nunique() * scores_RT["benchmark"].nunique()
    common = cells[cells == full]
    if common.empty:
        raise NotComparableError(f"{what_is_missing(scores_RT)}; so their scores cannot be compared")
    return int(common.index.max())


def what_is_missing(scores_RT: pd.DataFrame) -> str:
    """Says of runs without a common step which benchmark is missing in which of them, or else which step."""
    why, lacking = "the runs don't have the same benchmarks", runs_without(scores_RT, scores_RT)
    if not lacking:
        cells = scores_RT.groupby("step").size()
        step = cells[cells == cells.max()].index.max()
        why, at_step = "the runs share no evaluated step", scores_RT[scores_RT["step"] == step]
        lacking = {f"{name} at step {step}": runs for name, runs in runs_without(scores_RT, at_step).items()}
    return f"{why}: " + "; ".join(f"{name} is missing in {some_of(runs)}" for name, runs in lacking.items())


def runs_without(scores_RT: pd.DataFrame, among: pd.DataFrame) -> dict[str, list[str]]:
    """Returns the runs that have no row of a benchmark among some of all scores, by benchmark."""
    runs = {*scores_RT["run_id"]}
    own = {name: {*among.loc[among["benchmark"] == name, "run_id"]} for name in sorted({*scores_RT["benchmark"]})}
    return {str(name): sorted(runs - having) for name, having in own.items() if runs - having}


def some_of(names: Sequence[str]) -> str:
    """Lists the first few names, and says how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} others" if len(names) > SHOWN else "")


def over_seeds(values_RT: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Makes curves of arms from curves of runs, ready to draw.

    values_RT: run_id, panel, step, value. runs: run_id, arm, method. Returns panel, method, arm, step, mean,
    half_width, lowest and highest seed, seeds. A step that not every run of the arm reached is left out,
    because a mean over changing seeds isn't one curve. A NaN value (say, the entropy of clipped tokens where
    none was clipped) is left out of its step's mean; `seeds` says how many were in it.
    """
    joined = values_RT.merge(runs[["run_id", "arm", "method"]], on="run_id")
    keys = ["panel", "method", "arm", "step"]
    wanted = joined.groupby(["panel", "arm"])["run_id"].transform("nunique")
    reached = joined.groupby(keys)["run_id"].transform("nunique")
    known = joined[(reached == wanted) & joined["value"].notna()]
    groups = known.groupby(keys, sort=True)["value"].agg(["mean", "std", "count", "min", "max"]).reset_index()
    # as `mean_interval`, but for thousands of groups at once, and of metrics of any size
    spread = groups["std"].where(groups["min"] < groups["max"], 0.0)
    t = t_quantile(CONFIDENCE, groups["count"] - 1)
    half_width = (t * spread / np.sqrt(groups["count"])).where(groups["count"] > 1)
    return groups[keys].assign(
        mean=groups["mean"],
        half_width=half_width,
        seeds=groups["count"],
        lowest=groups["min"],
        highest=groups["max"],
    )


def score_curves(scores_RT: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Returns avg@n over RL steps, a panel for each benchmark, in the form of `over_seeds`."""
    return over_seeds(scores_RT.rename(columns={"benchmark": "panel", "score": "value"}), runs)


def metric_curves(
    metrics: pd.DataFrame, runs: pd.DataFrame, names: Sequence[str], stage: str = "rl"
) -> pd.DataFrame:
    """Returns the named metrics over the steps of one stage, a panel for each, in the form of `over_seeds`.

    An infinite value (a gradient norm after an overflow) is treated as NaN: it has no mean.
    """
    chosen = metrics.loc[(metrics["stage"] == stage) & metrics["run_id"].isin(runs["run_id"])]
    known = [name for name in names if name in metrics]
    values = chosen[["run_id", "step", *known]].melt(["run_id", "step"], var_name="panel", value_name="value")
    return over_seeds(values.assign(value=values["value"].replace([np.inf, -np.inf], np.nan)), runs)
