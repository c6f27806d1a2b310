"""What sharpens the claims about final scores without more seeds: other measures, covariates, more evaluation.

    python benchmarks/power.py [--results analysis/results] [--repeats 200]

The unit is a claim's paired difference, one number a seed. The first table sets other estimates beside the plain
mean of the differences: the ratio of their intervals' widths, and how far the mean moves, in half-widths of the
plain interval. An estimate of the same quantity is worth keeping where its interval is narrower and its mean
stays.

- area: avg@n averaged over all evaluations by trapezoids. It is another quantity, so its mean may move.
- late: mean of the last quarter of the evaluations, at least two. Nearly the same quantity.
- early, as 0: a control variate, the difference at the first evaluation after the start, expected to be 0.
- early, centred; first reward, centred; other arms, centred: regression on that difference, on the mean reward of
  the first RL step, or on the final score of the seed's arms that the claim doesn't compare, less its own mean
  over seeds; the last two both arms of a pair share. The mean can't move then; see the second table.

Coefficients are estimated from the claims of all sweeps together, each claim's values less their mean; the degree
of freedom that they cost is shared by all claims' seeds. The start itself, the SFT score, is the same for both
arms of a pair in all RL sweeps but table1, so it cancels there.

The second table tells what the centred regression is worth where the truth is known: how often its interval holds
the true mean. The third splits the variance of a difference into samples, prompts and seeds, and says what
doubling each would make of the interval and cost; half the prompts, which every kept run allows to try, check the
prediction.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from analysis.arms import as_words
from analysis.claims.claim import Claim
from analysis.claims.claims import CLAIMS
from analysis.sweeps.effects import Measure, Run, area_score, between, final_score, mean, values_of
from analysis.sweeps.kept import FOLDER, KeptSweep, read_results

Array = npt.NDArray[np.float64]
DASH = "-"
# Worlds of their own for every seed: prompts are no repeats of each other there.
OWN_WORLDS = ("table1", "table2", "table3", "table4", "table5")


def evaluated(run: Run, chosen: Callable[[list[int]], list[int]]) -> float | None:
    """Returns avg@n averaged over chosen evaluated steps; None of runs that weren't evaluated in between."""
    found = []
    for scores in run["scores"].values():
        steps = sorted(map(int, scores))
        if len(steps) < 3:
            return None
        found.append(mean([scores[str(step)] for step in chosen(steps)]))
    return mean([one for one in found if one is not None])


def late_score(run: Run) -> float | None:
    """Returns avg@n averaged over the last quarter of the evaluations, at least two."""
    return evaluated(run, lambda steps: steps[-max(2, round(len(steps) / 4)) :])


def early_score(run: Run) -> float | None:
    """Returns avg@n at the first evaluation after the start."""
    return evaluated(run, lambda steps: steps[1:2])


def first_reward(run: Run) -> float | None:
    """Returns the mean reward of the first RL step, whose policy and prompts both arms of a pair share."""
    rewards = values_of(run, "reward/mean")
    return rewards[0] if rewards else None


def about_scores(results: Path) -> list[tuple[Claim, KeptSweep]]:
    """Returns the claims about final scores whose sweeps were kept."""
    claims = [one for one in CLAIMS if getattr(one.effect, "keywords", {}).get("measure") is final_score]
    paths = {claim.id: results / f"{claim.sweep}.jsonl" for claim in claims}
    return [(claim, read_results(paths[claim.id])) for claim in claims if paths[claim.id].exists()]


def differences(claim: Claim, kept: KeptSweep, measure: Measure) -> pd.Series:
    """Returns a claim's paired differences in any measure, by seed."""
    keywords = claim.effect.keywords  # type: ignore[attr-defined]
    return between(kept, measure, keywords["plus"], keywords["minus"])


def shared_value(kept: KeptSweep, measure: Measure) -> pd.Series:
    """Returns what all runs of a seed share, averaged over them, by seed."""
    rows = [(run["seed"], measure(run)) for run in kept.runs]
    return pd.DataFrame(rows, columns=["seed", "value"]).dropna().groupby("seed")["value"].mean()


def other_arms(claim: Claim, kept: KeptSweep) -> pd.Series:
    """Returns the mean final score of the arms that a claim doesn't compare, by seed: how easy its world is."""
    sides = [claim.effect.keywords[side] for side in ("plus", "minus")]  # type: ignore[attr-defined]
    rest = [
        run
        for run in kept.runs
        if not any(all(as_words(run["arm"].get(k)) in v for k, v in side.items()) for side in sides)
    ]
    return shared_value(KeptSweep(kept.about, rest), final_score)


def slope(pairs: Sequence[tuple[Array, Array]]) -> float:
    """Returns the regression coefficient of y on x within claims."""
    above = sum(float(((y - y.mean()) * (x - x.mean())).sum()) for y, x in pairs)
    below = sum(float(((x - x.mean()) ** 2).sum()) for _, x in pairs)
    return above / below if below > 0 else 0.0


def interval(y_S: Array, pool: float = np.inf) -> tuple[float, float]:
    """Returns a t-interval's mean and half-width; of `pool` degrees of freedom in all, a coefficient took one."""
    freedom = (len(y_S) - 1) * (1 - 1 / pool)
    spread = float(np.sqrt(((y_S - y_S.mean()) ** 2).sum() / freedom))
    return float(y_S.mean()), float(stats.t.ppf(0.975, freedom)) * spread / np.sqrt(len(y_S))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def of_measures(claims: Sequence[tuple[Claim, KeptSweep]]) -> None:
    """Prints the first table, with medians over claims below."""
    plain = {claim.id: differences(claim, kept, final_score) for claim, kept in claims}
    others = {
        "area": {claim.id: differences(claim, kept, area_score) for claim, kept in claims},
        "late": {claim.id: differences(claim, kept, late_score) for claim, kept in claims},
    }
    covariates = {
        "early": {claim.id: differences(claim, kept, early_score) for claim, kept in claims},
        "first reward": {claim.id: shared_value(kept, first_reward) for claim, kept in claims},
        "other arms": {claim.id: other_arms(claim, kept) for claim, kept in claims},
    }
    pairs: dict[str, dict[str, tuple[Array, Array]]] = {}
    for name, found in covariates.items():
        own = {i: (plain[i], x.reindex(plain[i].index)) for i, x in found.items() if len(plain[i]) > 2}
        pairs[name] = {
            i: (y.to_numpy(), x.to_numpy(float)) for i, (y, x) in own.items() if x.notna().all() and np.ptp(x) > 0
        }
    slopes = {name: slope([*found.values()]) for name, found in pairs.items()}
    pools = {name: sum(len(y) - 1 for y, _ in found.values()) for name, found in pairs.items()}
    columns = ("area", "late", "early, as 0", "early, centred", "first reward, centred", "other arms, centred")
    ratios: dict[str, list[float]] = {name: [] for name in columns}
    shifts: dict[str, list[float]] = {name: [] for name in columns}
    rows = []
    for claim, _ in claims:
        y = plain[claim.id]
        if len(y) < 2:
            continue
        centre, half = interval(y.to_numpy())
        found: dict[str, tuple[float, float]] = {
            name: interval(one[claim.id].to_numpy()) for name, one in others.items() if len(one[claim.id]) > 1
        }
        for name, own_pairs in pairs.items():
            if claim.id in own_pairs:
                y_S, x_S = own_pairs[claim.id]
                if name == "early":
                    found["early, as 0"] = interval(y_S - slopes[name] * x_S, pools[name])
                found[f"{name}, centred"] = interval(y_S - slopes[name] * (x_S - x_S.mean()), pools[name])
        cells = [f"{claim.id} {claim.sweep}", str(len(y)), f"{centre:+.3f} ± {half:.3f}"]
        for name in columns:
            if name not in found:
                cells.append(DASH)
                continue
            ratios[name].append(found[name][1] / half)
            shifts[name].append((found[name][0] - centre) / half)
            cells.append(f"{ratios[name][-1]:.2f}, {shifts[name][-1]:+.2f}")
        rows.append(cells)
    rows.append(["median ratio, largest shift", "", ""])
    rows[-1] += [f"{np.median(ratios[n]):.2f}, {max(map(abs, shifts[n])):.2f}" for n in columns]
    table(["claim", "seeds", "plain", *(f"{name}: ratio, shift" for name in columns)], rows)
    print("\nslopes: " + ", ".join(f"{name} {value:+.2f}" for name, value in slopes.items()))


def of_covariates(histories: int) -> None:
    """Prints how often intervals of 95 % hold the true mean: covariates are centred or have a known mean."""
    rows = []
    for correlation in (0.0, 0.5, 0.8):
        cells = [f"{correlation:g}"]
        for seeds in (5, 20):
            rng = np.random.default_rng(seeds)
            x_RS = rng.normal(size=(histories, seeds))
            y_RS = correlation * x_RS + np.sqrt(1 - correlation**2) * rng.normal(size=(histories, seeds))
            for shift in (x_RS.mean(axis=1, keepdims=True), 0.0):
                found = [interval(y_S) for y_S in y_RS - correlation * (x_RS - shift)]
                held = np.mean([abs(centre) <= half for centre, half in found])
                cells.append(f"{100 * held:.1f}")
        rows.append(cells)
    heads = [f"{seeds} seeds, {how}" for seeds in (5, 20) for how in ("centred", "known mean")]
    table(["correlation", *heads], rows)


def weighted_shares(claim: Claim, kept: KeptSweep) -> dict[int, list[tuple[float, str, Array, int]]]:
    """Returns, by seed, each run's benchmarks: weight in the difference, name, right share by prompt, samples."""
    keywords = claim.effect.keywords  # type: ignore[attr-defined]
    by_seed: dict[int, list[tuple[float, str, Array, int]]] = {}
    for sign, side in ((1.0, "plus"), (-1.0, "minus")):
        runs = [r for r in kept.runs if all(as_words(r["arm"].get(k)) in v for k, v in keywords[side].items())]
        arms = len({str(run["arm"]) for run in runs})
        for run in runs:
            for name, right in run["right"].items():
                weight = sign / (arms * len(run["right"]))
                share_P = np.array(right, dtype=float) / run["samples"]
                by_seed.setdefault(run["seed"], []).append((weight, name, share_P, run["samples"]))
    most = max(map(len, by_seed.values()))
    return {seed: found for seed, found in by_seed.items() if len(found) == most}


def split(by_seed: Mapping[int, list[tuple[float, str, Array, int]]], fixed: bool) -> tuple[float, float, float]:
    """Returns the variance of one seed's difference, with the parts of samples and of prompts in it.

    fixed: all seeds have the same prompts, so that what a prompt does to all seeds alike is no variance of theirs.
    """
    differences_S = [sum(w * share_P.mean() for w, _, share_P, _ in found) for found in by_seed.values()]
    samples = []
    for found in by_seed.values():
        samples.append(sum(w**2 * (p * (1 - p)).mean() / (len(p) * (n - 1)) for w, _, p, n in found))
    of_prompts = 0.0
    for name in dict.fromkeys(name for found in by_seed.values() for _, name, _, _ in found):
        gap_SP = np.array([sum(w * p for w, own, p, _ in found if own == name) for found in by_seed.values()])
        rest_SP = gap_SP - gap_SP.mean(axis=1, keepdims=True)
        seeds, prompts = gap_SP.shape
        if fixed:
            rest_SP = rest_SP - rest_SP.mean(axis=0)
        freedom = (seeds - 1 if fixed else seeds) * (prompts - 1)
        of_prompts += float((rest_SP**2).sum()) / freedom / prompts
    return float(np.var(differences_S, ddof=1)), float(np.mean(samples)), max(0.0, of_prompts - np.mean(samples))


def halves(by_seed: Mapping[int, list[tuple[float, str, Array, int]]], repeats: int) -> tuple[float, float]:
    """Returns how much wider the interval is with half the prompts, and the mean's largest move of two halves."""
    rng = np.random.default_rng(0)
    sizes = {name: len(p) for found in by_seed.values() for _, name, p, _ in found}
    whole = np.var([sum(w * p.mean() for w, _, p, _ in found) for found in by_seed.values()], ddof=1)
    variances, means = [], []
    for _ in range(repeats):
        chosen = {name: rng.permutation(size)[: size // 2] for name, size in sizes.items()}
        half_S = [sum(w * p[chosen[name]].mean() for w, name, p, _ in found) for found in by_seed.values()]
        variances.append(np.var(half_S, ddof=1))
        means.append(np.mean(half_S))
    return float(np.sqrt(np.mean(variances) / whole)), float(np.std(means))


def of_evaluation(claims: Sequence[tuple[Claim, KeptSweep]], repeats: int) -> None:
    """Prints the third table."""
    rows = []
    for claim, kept in claims:
        by_seed = weighted_shares(claim, kept)
        whole, samples, prompts = split(by_seed, fixed=claim.sweep not in OWN_WORLDS)
        parts = np.array([samples, prompts]) / max(whole, samples + prompts)
        seeds = len(by_seed)
        measured, moved = halves(by_seed, repeats)
        both = parts.sum()
        rows.append(
            [
                f"{claim.id} {claim.sweep}",
                str(seeds),
                f"{np.sqrt(whole):.3f}",
                *(f"{share:.0%}" for share in (*parts, 1 - both)),
                f"{np.sqrt(1 - parts[0] / 2):.2f}",
                f"{np.sqrt(1 - both / 2):.2f}",
                *(f"{narrower(seeds, more):.2f}" for more in (1, seeds)),
                evaluation_share(kept),
                f"{measured:.2f} ({np.sqrt(1 + both):.2f})",
                f"{moved:.3f}",
            ]
        )
    heads = [
        *("claim", "seeds", "spread of one seed", "samples", "prompts", "seeds' own", "samples x 2"),
        *(
            "prompts x 2",
            "one seed more",
            "seeds x 2",
            "cost of evaluation x 2",
            "half the prompts: measured (predicted)",
            "mean moves by",
        ),
    ]
    table(heads, rows)


def narrower(seeds: int, more: int) -> float:
    """Returns the ratio of the widths of intervals that so many seeds more would give."""
    return float(
        stats.t.ppf(0.975, seeds + more - 1) / stats.t.ppf(0.975, seeds - 1) * np.sqrt(seeds / (seeds + more))
    )


def evaluation_share(kept: KeptSweep) -> str:
    """Returns the share of a run's time that its evaluations take, which doubling their size adds once more."""
    timed: list[Mapping[str, Any]] = [run for run in kept.runs if run.get("evaluation") and run.get("seconds")]
    if not timed:
        return DASH
    return f"+{np.mean([run['evaluation'] / run['seconds'] for run in timed]):.0%}"


def main() -> None:
    """Prints the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--repeats", type=int, default=200, help="random halves of the prompts")
    parser.add_argument("--histories", type=int, default=4000, help="simulated sets of seeds")
    arguments = parser.parse_args()
    claims = about_scores(arguments.results)
    of_measures(claims)
    print()
    of_covariates(arguments.histories)
    print()
    of_evaluation(claims, arguments.repeats)


if __name__ == "__main__":
    main()
