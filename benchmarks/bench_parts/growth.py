"""How the time and memory of one RL step of ours grow: with responses, their length, the model, and arms at once.

Responses have random tokens and the length that is asked for, so sampling stops for none. A model has random
weights. Memory is what the steps add to the process's resident set. Draws growth.png beside results.json, with the
exponent of a power law through the points.
"""

import os
import signal
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench_parts.figures import OURS, Figure
from bench_parts.our_step import KEEP_ALL, OurSteps
from bench_parts.rl_step import medians
from bench_parts.work import Work

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
    """Returns the seconds of a step's sampling and training, and the MiB at most that steps add to the process."""
    sizes = {**BASE, axis: value // (4 if work.small and axis == "responses" else 1)}
    config = work.composed(
        "clip_method=gppo",
        KEEP_ALL,
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
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    found = medians([steps.step() for _ in range(STEPS)][1:])
    training = found["old log-probabilities"] + found["updates"]
    return {"sampling": found["sampling"], "training": training, "memory": resident("VmHWM") - before}


def resident(name: str) -> float:
    """Returns MiB of this process's resident set: "VmRSS" now, "VmHWM" at most."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1]) / 1024


def measure_arms(arms: int, work: Work) -> dict[str, float]:
    """Returns the seconds of the standard step while as many arms run at once, each in a process of its own."""
    children = [pid for _ in range(arms - 1) if (pid := start_arm(work))]
    try:
        return measure("responses", BASE["responses"], work)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def start_arm(work: Work) -> int:
    """Starts a process that repeats the step until it is ended; returns its number."""
    pid = os.fork()
    if pid == 0:
        while True:
            measure("responses", BASE["responses"], work)
    return pid


ARMS = (1, 2, 4)
SIDES = {f"{axis} {value}": partial(measure, axis, value) for axis, values in AXES.items() for value in values}
SIDES |= {f"arms {arms}": partial(measure_arms, arms) for arms in ARMS}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns the whole step at each point, without anything beside it."""
    (sides,) = found.values()
    return [
        Figure(side, "s", {OURS: [one["sampling"] + one["training"] for one in o]}) for side, o in sides.items()
    ]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Tells the exponents, and shows the plot."""
    told = [
        f"{axis}: {', '.join(f'{what} {exponent(values, ys):.2f}' for what, ys in of.items())}"
        for axis, (values, of) in curves_of(found).items()
    ]
    return [
        f"Exponents of a power law through the points: {'; '.join(told)}. Memory is what steps add to the "
        "resident set of one process, at most.",
        PICTURE,
    ]


PICTURE = "![Seconds and memory of a step over responses, length, hidden size and arms](growth.png)"
ROWS = {"seconds of a step": ("sampling", "training"), "MiB that steps add": ("memory",)}  # of the plot
Curve = tuple[tuple[int, ...], dict[str, list[float]]]


def curves_of(found: dict[int, dict[str, list[dict[str, float]]]]) -> dict[str, Curve]:
    """Returns for each axis its values and, at each of them, the medians of what was measured."""
    (sides,) = found.values()
    return {
        axis: (
            values,
            {
                what: [statistics.median(one[what] for one in sides[f"{axis} {value}"]) for value in values]
                for row in ROWS.values()
                for what in row
            },
        )
        for axis, values in {**AXES, "arms": ARMS}.items()
    }


def exponent(values: tuple[int, ...], ys: list[float]) -> float:
    """Returns the slope of log y over log x."""
    return float(np.polyfit(np.log(values), np.log(ys), 1)[0])


def draw(found: dict[int, dict[str, list[dict[str, float]]]], folder: Path) -> None:
    """Draws seconds and memory over each axis, all logarithmic, into a folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = curves_of(found)
    figure, axes = pyplot.subplots(
        len(ROWS), len(curves), figsize=(12, 5.5), sharex="col", sharey="row", layout="constrained"
    )
    for (label, names), row in zip(ROWS.items(), axes, strict=True):
        row[0].set_ylabel(label)
        for ax, (values, of) in zip(row, curves.values(), strict=True):
            for what in names:
                ax.loglog(values, of[what], marker="o", label=f"{what}, power {exponent(values, of[what]):.2f}")
            ax.set_xticks(values, map(str, values))
            ax.minorticks_off()
            ax.legend(fontsize=8)
    for ax, axis in zip(axes[-1], curves, strict=True):
        ax.set_xlabel(axis)
    figure.savefig(folder / "growth.png", dpi=110)
