"""Names every metric that a run logs, once: its title, unit and formula, and where else it is shown.

    python -m klear_lab.metrics      # writes the tables of docs/metrics.md

A new metric is an entry in METRICS here and the line that computes it (klear_lab/rl/probes.py for most). The table
feeds docs/metrics.md, the curves that `python -m analysis keep` keeps, the titles and panels of figures and of
wandb, wandb's axes, and the numbers on the console. Tests compare it with what a run logs.
"""

import argparse
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"
# Between these two lines of the page the command writes; the words around them are written by hand.
START, END = "<!-- written by `python -m klear_lab.metrics` -->", "<!-- end of what is written -->"

# Groups of panels, in the order in which figures and wandb show them.
CLIPPING, BY_REGION, SPREAD = "Clipping and entropy", "Entropy by region", "Importance ratio and pass rate"
TRAINING = "Training"
MECHANISM = (CLIPPING, BY_REGION, SPREAD)
HEADING_LETTERS = 21  # of a line over a panel; longer ones reach into the panel beside it
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Metric:
    """Describes a metric by its name in metrics.jsonl; the run fills in the parts of it that stand in `<...>`.

    title, unit: what a panel is headed with; unit "" for a plain number. formula: a cell of docs/metrics.md.
    group: the group of panels that shows it, "" for none. kept: whether `analysis keep` keeps its curve, which it
    does for every metric of a group. in_sft: whether SFT logs it too; RL logs them all.
    """

    name: str
    title: str
    unit: str
    formula: str
    kept: bool = False
    group: str = ""
    in_sft: bool = False

    @property
    def family(self) -> str:
        """Returns the part of the name before its first slash."""
        return self.name.partition("/")[0]

    def matches(self, logged: str) -> bool:
        """Tells whether a logged name is this metric's, whatever stands in place of `<...>`."""
        fixed = re.split(r"<\w+>", self.name)
        return re.fullmatch("[^/@]+".join(map(re.escape, fixed)), logged) is not None


# The tokens that clip methods treat differently: region -> its words in a title, and in a formula.
REGIONS = {
    "low_clipped": ("low-clip region", "tokens of the low-clip region"),
    "high_clipped": ("high-clip region", "tokens of the high-clip region"),
    "below_positive": ("below, A > 0", "tokens with r < 1 - eps_low and A > 0"),
    "above_negative": ("above, A < 0", "tokens with r > 1 + eps_high and A < 0"),
    "unclipped": ("outside both", "tokens of neither clip region"),
}
CLIP_REGIONS = ("low_clipped", "high_clipped")
QUANTILES = {"p01": "1", "p10": "10", "p50": "50", "p90": "90", "p99": "99", "p999": "99.9"}
TOKENS, RESPONSES, GRADIENT = "share of tokens", "share of responses", "share of gradient"

METRICS = (
    Metric(
        "clip/low_fraction",
        "Low-clip region",
        TOKENS,
        "share of tokens with r < 1 - eps_low and A < 0",
        group=CLIPPING,
    ),
    Metric(
        "clip/high_fraction",
        "High-clip region",
        TOKENS,
        "share of tokens with r > 1 + eps_high and A > 0",
        group=CLIPPING,
    ),
    Metric(
        "clip/dual_fraction",
        "Dual-clip region",
        TOKENS,
        "share of tokens with r > dual_clip and A < 0; 0 without dual_clip",
        kept=True,
    ),
    Metric(
        "clip/below_positive_fraction",
        "Below, A > 0",
        TOKENS,
        "share of tokens with r < 1 - eps_low and A > 0, which only cispo bounds",
        kept=True,
    ),
    Metric(
        "clip/above_negative_fraction",
        "Above, A < 0",
        TOKENS,
        "share of tokens with r > 1 + eps_high and A < 0, which cispo bounds and dual_clip silences",
        kept=True,
    ),
    Metric(
        "clip/gradient_share",
        "Both regions",
        GRADIENT,
        "sum of abs(F A) over tokens in the two clip regions / sum over all tokens; F A from autograd",
        group=CLIPPING,
    ),
    *(
        Metric(
            f"clip/gradient_share_{region}",
            title[0].upper() + title[1:],
            GRADIENT,
            f"the same for {words}",
            kept=True,
        )
        for region, (title, words) in REGIONS.items()
        if region != "unclipped"
    ),
    Metric("ratio/mean", "Importance ratio, mean", "", "mean of r"),
    *(
        Metric(
            f"ratio/{name}",
            f"Importance ratio, {share}{NO_BREAK}%{NO_BREAK}quantile",
            "",
            f"nearest-rank {share} % quantile of r",
            kept=name in ("p01", "p99", "p999"),
            group=SPREAD if name in ("p01", "p99") else "",
        )
        for name, share in QUANTILES.items()
    ),
    Metric("ratio/max", "Importance ratio, largest", "", "largest r", kept=True),
    Metric(
        "policy/entropy",
        "Entropy, all tokens",
        "nats",
        "-sum p log p over the vocabulary, under the current policy at the training temperature",
        group=CLIPPING,
    ),
    *(
        Metric(
            f"policy/entropy_{region}",
            f"Entropy, {title}",
            "nats",
            f"entropy of {words}",
            kept=region != "below_positive",
            group=BY_REGION if region in (*CLIP_REGIONS, "unclipped") else "",
        )
        for region, (title, words) in REGIONS.items()
    ),
    *(
        Metric(
            f"policy/entropy_quarter_{quarter}",
            f"Entropy, quarter {quarter} of 4",
            "nats",
            f"entropy of tokens in quarter {quarter} of their response",
        )
        for quarter in range(1, 5)
    ),
    *(
        Metric(
            f"policy/prob_{region}",
            f"Probability, {title}",
            "",
            f"probability of the sampled token under the current policy: {words}",
            kept=region in CLIP_REGIONS,
        )
        for region, (title, words) in REGIONS.items()
    ),
    *(
        Metric(
            f"policy/prob_old_{region}",
            f"Probability when sampled, {title}",
            "",
            f"probability of the sampled token under the policy that sampled it: {words}",
            kept=region in CLIP_REGIONS,
        )
        for region, (title, words) in REGIONS.items()
    ),
    Metric(
        "policy/kl_old",
        "KL from the sampling policy",
        "nats",
        "mean of r - 1 - log r: the k3 estimator of KL(pi_old, pi_theta)",
        group=TRAINING,
    ),
    Metric(
        "policy/sampler_kl",
        "KL from the sampler to the learner",
        "nats",
        "mean of m - 1 - log m, m = pi_old / mu, mu the sampler's own probability: the k3 estimator of "
        "KL(mu, pi_old); empty where the sampler gives none",
        group=TRAINING,
    ),
    Metric("policy/sampler_ratio_max", "Largest mismatch ratio", "", "largest m = pi_old / mu", group=TRAINING),
    Metric(
        "clip/mismatch_low_fraction",
        "Mismatch below its bound",
        TOKENS,
        "share of tokens whose m, or for sequence_mask its product over the response, is below the correction's "
        "low; 0 without a correction",
    ),
    Metric(
        "clip/mismatch_high_fraction",
        "Mismatch above its bound",
        TOKENS,
        "share of tokens whose m, or for sequence_mask its product over the response, is above the correction's "
        "high; 0 without a correction",
    ),
    Metric(
        "optim/grad_norm",
        "Gradient norm",
        "",
        "L2 norm before clipping; RL: mean over the step's mini-batches",
        group=TRAINING,
        in_sft=True,
    ),
    Metric("optim/lr", "Learning rate", "", "learning rate of the last update", in_sft=True),
    Metric(
        "optim/updates",
        "Updates",
        "per step",
        "optimiser steps of this RL step; fewer than planned where groups were dropped",
        kept=True,
    ),
    Metric(
        "optim/skipped_updates",
        "Skipped updates",
        "per step",
        "updates of this RL step that were not applied because loss or gradient was not finite "
        "(`rl.on_nonfinite=skip`); not in the other metrics",
        kept=True,
    ),
    Metric(
        "loss/policy",
        "Policy loss",
        "",
        "-sum of the objective / tokens of the mini-batch, mean over mini-batches",
    ),
    Metric(
        "loss/sft",
        "SFT loss",
        "nats",
        "mean negative log-likelihood: SFT: of response tokens; RL: of correct responses' tokens, before alpha",
        group=TRAINING,
        in_sft=True,
    ),
    Metric(
        "reward/mean",
        "Mean reward",
        "",
        "mean of what RL is given, over all responses of the rollout, before anything is dropped",
        group=TRAINING,
    ),
    Metric("reward/std", "Spread of rewards", "", "population standard deviation of the same"),
    Metric(
        "reward/raw",
        "Raw score",
        "",
        "mean of what the verifier found, from 0 to 1: for code the share of test cases passed",
    ),
    Metric("reward/accuracy", "Accuracy", RESPONSES, "share of responses that are right: raw = 1", group=TRAINING),
    Metric(
        "reward/format_rate",
        "Well-formed",
        RESPONSES,
        "share of responses with one `<think>...</think>` at their start",
        kept=True,
    ),
    Metric(
        "reward/reason/<why>",
        "Reason of the reward",
        RESPONSES,
        "share of responses that earn what they earn for this reason; the reasons are explained below the tables",
    ),
    *(
        Metric(
            f"reward/accuracy_difficulty_{quarter}",
            f"Pass rate of prompts, difficulty {quarter} of 4",
            "",
            f"accuracy on prompts of quarter {quarter} of difficulty, 1 the easiest: the row's `difficulty`, or "
            "the share of a strong model's completions that failed",
            group=SPREAD,
        )
        for quarter in range(1, 5)
    ),
    Metric(
        "rollout/length_mean", "Length", "tokens", "tokens a response, the stop token included", group=TRAINING
    ),
    Metric(
        "rollout/length_correct", "Length, right answers", "tokens", "the same, of correct responses", kept=True
    ),
    Metric("rollout/length_wrong", "Length, wrong answers", "tokens", "the same, of the others", kept=True),
    Metric(
        "rollout/truncated_fraction",
        "Truncated responses",
        "share",
        "share of responses that hit `rl.max_response_tokens`",
        group=TRAINING,
    ),
    Metric(
        "rollout/zero_advantage_fraction",
        "Groups without advantage",
        "share",
        "share of groups whose rewards are all equal",
        group=TRAINING,
    ),
    Metric("time/rollout_s", "Rollout", "s", "seconds of the step's sampling", kept=True),
    Metric("time/reward_s", "Rewards", "s", "seconds of the step's verification", kept=True),
    Metric(
        "time/train_s",
        "Training",
        "s",
        "seconds of the step's updates; RL: with the old log-probabilities",
        kept=True,
        in_sft=True,
    ),
    Metric("time/eval_s", "Evaluation", "s", "seconds of the step's evaluation"),
    Metric(
        "perf/tokens_per_s",
        "Speed",
        "tokens per s",
        "RL: response tokens / (rollout + reward + training) seconds; "
        "SFT: prompt and response tokens / training seconds",
        in_sft=True,
    ),
    Metric(
        "perf/rollout_tokens_per_s",
        "Speed of sampling",
        "tokens per s",
        "response tokens / rollout seconds",
    ),
    Metric(
        "perf/train_tokens_per_s",
        "Speed of the updates",
        "tokens per s",
        "prompt and response tokens of all updates, each pass over a rollout counted / training seconds; "
        "empty where no group was left to train on",
    ),
    Metric(
        "perf/mfu",
        "Model FLOPs utilisation",
        "share of peak",
        "FLOPs of forward and backward passes / training seconds / the card's peak in bfloat16 "
        "(`klear_lab/policy/throughput.py`); empty where the peak isn't known, as on a CPU",
        in_sft=True,
    ),
    Metric(
        "perf/device_memory_gib",
        "Memory of the GPU, peak",
        "GiB",
        "most that PyTorch held on the GPU within the step; empty on a CPU",
        in_sft=True,
    ),
    Metric(
        "perf/main_memory_gib",
        "Main memory",
        "GiB",
        "main memory that the run's process holds after the step; empty where the system isn't Linux",
        in_sft=True,
    ),
    Metric(
        "eval/<benchmark>/avg@<n>",
        "Score on the benchmark",
        "",
        "mean over problems of the share of n sampled responses that are right",
    ),
)

# What the console shows of a step, in this order; scores follow.
CONSOLE = {
    "reward/accuracy": "accuracy {:.2f}",
    "policy/entropy": "entropy {:.3f}",
    "clip/low_fraction": "clip low {:.2%}",
    "clip/high_fraction": "high {:.2%}",
    "loss/sft": "SFT loss {:.3f}",
}


def kept_names() -> list[str]:
    """Returns the names of the metrics whose curves `analysis keep` keeps."""
    return [metric.name for metric in METRICS if metric.kept or metric.group]


def names_in(*groups: str) -> list[str]:
    """Returns the names of the metrics of some groups of panels, group by group."""
    return [metric.name for group in groups for metric in METRICS if metric.group == group]


def panel_groups() -> dict[str, list[str]]:
    """Returns every group of panels with the names of its metrics."""
    return {group: names_in(group) for group in (*MECHANISM, TRAINING)}


def metric_of(logged: str) -> Metric | None:
    """Returns the metric of a logged name, None for a name that the table doesn't have."""
    return next((metric for metric in METRICS if metric.matches(logged)), None)


def heading(name: str) -> str:
    """Returns a metric's title and unit in short lines, as over a panel; a name it doesn't know stays itself."""
    metric = metric_of(name)
    if metric is None:
        return name
    unit = f"({metric.unit})".replace(" ", NO_BREAK) if metric.unit else ""
    lines = textwrap.wrap(f"{metric.title} {unit}", HEADING_LETTERS)
    return "\n".join(lines).replace(NO_BREAK, " ")


def rl_patterns() -> list[str]:
    """Returns what RL alone logs, as patterns for wandb: a whole family (`clip/*`) where SFT logs none of it."""
    with_sft = {metric.family for metric in METRICS if metric.in_sft}
    alone = [metric for metric in METRICS if not metric.in_sft]
    return list(dict.fromkeys(m.name if m.family in with_sft else f"{m.family}/*" for m in alone))


def tables() -> str:
    """Returns the tables of docs/metrics.md, one for each family of names."""
    parts = []
    for family, members in groupby(METRICS, key=lambda metric: metric.family):
        parts += [f"## {family}\n", "| name | title | unit | formula | kept |", "|---|---|---|---|---|"]
        for one in members:
            title, kept = one.title.replace(NO_BREAK, " "), "yes" if one.kept or one.group else ""
            parts.append(f"| `{one.name}` | {title} | {one.unit} | {one.formula} | {kept} |")
        parts.append("")
    return "\n".join(parts)


def with_tables(page: str) -> str:
    """Returns the page with its tables written anew. Raises ValueError where START or END is missing."""
    before, after = page[: page.index(START)], page[page.index(END) :]
    return f"{before}{START}\n\n{tables()}\n{after}"


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page, after it has refused arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m klear_lab.metrics",
        description="Writes the tables of docs/metrics.md from METRICS in klear_lab/metrics.py.",
    )
    parser.parse_args(argv)
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
