"""How the time and memory of one RL step of ours grow: with responses, their length, the model, and arms at once.

Responses have random tokens and the length that is asked for, so sampling stops for none. A model has random
weights. Memory is what the steps add to the process's resident set. Draws growth.png beside results.json, with the
exponent of a power law through the points.
"""

import multiprocessing
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
    "arms": (1, 2, 4),
}
SMALLER = {"responses": 4, "tokens of a response": 4}  # divides the sizes of `--small`
STEPS = 3


def measure(axis: str, work: Work) -> dict[str, float]:
    """Returns the seconds of a step's sampling and training and its MiB, at each point of an axis.

    Each point has a process of its own, forked from one that has imported everything, so that none can use memory
    that an earlier one freed.
    """
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as processes:
        points = processes.map(partial(measure_point, axis, work), AXES[axis], chunksize=1)
    return {
        f"{what} {value}": own
        for value, point in zip(AXES[axis], points, strict=True)
        for what, own in point.items()
    }


def measure_point(axis: str, work: Work, value: int) -> dict[str, float]:
    """Returns what `measure` does, at one point; for "arms", of one of as many that run at once."""
    if axis != "arms":
        return measure_step({**BASE, axis: value}, work)
    children = [start_arm(work) for _ in range(value - 1)]
    try:
        return measure_step(BASE, work)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def start_arm(work: Work) -> int:
    """Starts a process that repeats the standard step until it is ended; returns its number."""
    pid = os.fork()
    if pid == 0:
        while True:
            measure_step(BASE, work)
    return pid


def measure_step(sizes: dict[str, int], work: Work) -> dict[str, float]:
    """Returns the seconds of a step's sampling and training, and the MiB at most that steps add to the process."""
    if work.small:
        sizes = {name: size // SMALLER.get(name, 1) for name, size in sizes.items()}
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


SIDES = {axis: partial(measure, axis) for axis in AXES}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns the whole step at each point, without anything beside it."""
    (sides,) = found.values()
    return [
        Figure(
            f"{axis} {value}",
            "s",
            {OURS: [one[f"sampling {value}"] + one[f"training {value}"] for one in sides[axis]]},
        )
        for axis, values in AXES.items()
        for value in values
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
                what: [statistics.median(one[f"{what} {value}"] for one in sides[axis]) for value in values]
                for row in ROWS.values()
                for what in row
            },
        )
        for axis, values in AXES.items()
    }


def exponent(values: tuple[int, ...], ys: list[float]) -> float:
    """Returns the slope of log y over log x."""
    return float(np.polyfit(np.log(values), np.log(ys), 1)[0])


def draw(found: dict[int, dict[str, list[dict[str, float]]]], folder: Path) -> None:
    """Draws seconds and memory over each axis, all logarithmic, into a folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator

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
            ax.grid(axis="y", alpha=0.3)
            ax.legend(fontsize=8)
        row[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        row[0].yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    for ax, axis in zip(axes[-1], curves, strict=True):
        ax.set_xlabel(axis)
    figure.savefig(folder / "growth.png", dpi=110)
