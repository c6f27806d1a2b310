"""How the time and memory of one RL step of ours grow: with responses, their length, the model, and arms at once.

Responses have random tokens and the length that is asked for, so sampling stops for none. A model has random
weights.
Draws growth.png, with the exponent of a power law through the points.
"""

import os
import resource
import statistics
from functools import partial

import numpy as np
import torch

from bench_parts.figures import OURS, Figure
from bench_parts.our_step import OurSteps
from bench_parts.rl_step import medians
from bench_parts.work import ROOT, Work

TITLE = "How a step grows"
THREADS = (1,)
BASE = {"responses": 256, "tokens of a response": 40, "hidden size": 64}
AXES = {
    "responses": (64, 128, 256, 512),
    "tokens of a response": (20, 40, 80, 160),
    "hidden size": (32, 64, 128, 256),
}
STEPS = 3


def measure(axis: str, value: int, work: Work) -> dict[str, float]:
    """Returns the seconds of a step's sampling and training, and the process's peak memory in MiB."""
    sizes = {**BASE, axis: value // (4 if work.small and axis == "responses" else 1)}
    config = work.composed(
        "clip_method=gppo",
        f"rl.prompts_per_step={sizes['responses'] // 8}",
        "rl.responses_per_prompt=8",
        f"rl.rollout_batch_sequences={sizes['responses']}",
        f"rl.max_response_tokens={sizes['tokens of a response']}",
        "rl.learning_rate=1e-6",
        "rl.weight_decay=0",
    )
    policy = work.policy(config)
    width = sizes["hidden size"]
    shape = policy.model.config
    shape.hidden_size, shape.intermediate_size, shape.head_dim = width, 3 * width, width // 2
    torch.manual_seed(0)
    policy.model = type(policy.model)(shape)
    policy.stop_token_ids.clear()  # so that each response has its full length
    steps = OurSteps(config, policy, work.rows("rl.jsonl"))
    found = medians([steps.step(number) for number in range(STEPS)][1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    training = found["old log-probabilities"] + found["updates"]
    return {"sampling": found["sampling"], "training": training, "memory": peak}


def measure_arms(arms: int, work: Work) -> dict[str, float]:
    """Returns the seconds of the standard step while as many arms run at once, each in a process of its own."""
    children = [pid for _ in range(arms - 1) if (pid := start_arm(work))]
    try:
        return measure("responses", BASE["responses"], work)
    finally:
        for pid in children:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def start_arm(work: Work) -> int:
    """Starts a process that repeats the step until it is ended; returns its number."""
    pid = os.fork()
    if pid == 0:
        while True:
            measure("responses", BASE["responses"], work)
    return pid


ARMS = (1, 2)
SIDES = {f"{axis} {value}": partial(measure, axis, value) for axis, values in AXES.items() for value in values}
SIDES |= {f"arms {arms}": partial(measure_arms, arms) for arms in ARMS}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns the whole step at each point, without anything beside it."""
    (sides,) = found.values()
    return [
        Figure(side, "s", {OURS: [one["sampling"] + one["training"] for one in o]}) for side, o in sides.items()
    ]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Draws the plot, and tells the exponents."""
    (sides,) = found.values()
    told, curves = [], {}
    for axis, values in {**AXES, "arms": ARMS}.items():
        of = {
            what: [statistics.median(one[what] for one in sides[f"{axis} {value}"]) for value in values]
            for what in ("sampling", "training", "memory")
        }
        curves[axis] = (values, of)
        powers = ", ".join(f"{what} {exponent(values, ys):.2f}" for what, ys in of.items())
        told.append(f"{axis}: {powers}")
    draw(curves)
    return [
        f"Exponents of a power law through the points: {'; '.join(told)}. Memory is the whole process's.",
        PICTURE,
    ]


PICTURE = "![Seconds of sampling and of training over responses, length, hidden size and arms](growth.png)"


def exponent(values: tuple[int, ...], ys: list[float]) -> float:
    """Returns the slope of log y over log x."""
    return float(np.polyfit(np.log(values), np.log(ys), 1)[0])


def draw(curves: dict[str, tuple[tuple[int, ...], dict[str, list[float]]]]) -> None:
    """Draws seconds over each axis, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(12, 3), sharey=True, layout="constrained")
    for ax, (axis, (values, of)) in zip(axes, curves.items(), strict=True):
        for what in ("sampling", "training"):
            ax.loglog(values, of[what], marker="o", label=f"{what}, power {exponent(values, of[what]):.2f}")
        ax.set_xticks(values, map(str, values))
        ax.minorticks_off()
        ax.set(xlabel=axis)
        ax.legend(fontsize=8)
    axes[0].set_ylabel("seconds of a step")
    target = os.environ.get("BENCH_PICTURES", str(ROOT / "benchmarks"))
    figure.savefig(f"{target}/growth.png", dpi=110)
