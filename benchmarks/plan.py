"""The plan against what really happens: memory of training steps, and hours of runs forecast from a short one.

    python benchmarks/plan.py

Memory: an SFT step of three models, its peak counted tensor by tensor, against the plan's total. Time: a run of a
few steps gives the pace (`python -m klear_lab.plan --like`), and the plan forecasts others of that model: more
steps, more prompts, longer responses, other mini-batches, more evaluation. Each is then run, one at a time. Last,
two models are forecast from another one's run, which nobody promises: small ones don't keep a machine busy.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from klear_lab.config import ModelConfig
from klear_lab.plan.live_memory import LiveMemory
from klear_lab.plan.measure import Method, training_pass
from klear_lab.plan.memory import STATES
from klear_lab.plan.model_size import read_model_config, size_of
from klear_lab.plan.pace import seconds_taken
from klear_lab.policy.model import load_policy
from klear_lab.policy.training_state import apply_gradient, start_state
from klear_lab.sft import Example, backward
from klear_lab.storage.run_folder import RunFolder

MIB = 2**20
SHAPES = [  # hidden size, layers, sequences, positions
    (64, 3, 32, 96),
    (256, 6, 8, 256),
    (512, 8, 4, 512),
]
SHORT = [
    *("logger=none", "progress=off", "cpu_threads=1", "sft.steps=4", "eval.every=1000", "data.benchmark_rows=16"),
    *("rl.steps=6", "rl.drop_zero_advantage=false", "rl.alpha=0", "token_records.every=null"),
]
WIDE = ["model.hidden_size=128", "model.layers=4"]
WIDER = ["model.hidden_size=256", "model.layers=6", "rl.prompts_per_step=16", "rl.mini_batch_prompts=2"]
FORECASTS: list[tuple[list[str], list[str]]] = [  # the run that gives the pace, and what is forecast from it
    ([], ["rl.steps=18"]),
    ([], ["rl.prompts_per_step=64"]),
    ([], ["rl.max_response_tokens=192"]),
    ([], ["clip_method=bapo", "rl.mini_batch_prompts=2"]),
    ([], ["eval.every=2", "eval.samples=8"]),
    (WIDE, [*WIDE, "rl.steps=12", "rl.prompts_per_step=16"]),
    (WIDER, [*WIDER, "rl.steps=12"]),
    ([], WIDE),
    ([], WIDER),
]


def main() -> None:
    """Prints both tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    compare_memory()
    with tempfile.TemporaryDirectory() as folder:
        compare_time(Path(folder))


def compare_memory() -> None:
    """Prints the planned and the real peak of an SFT step."""
    print("| hidden x layers, sequences x positions | planned MiB | measured MiB | ratio |\n|---|---:|---:|---:|")
    for hidden, layers, sequences, positions in SHAPES:
        config = ModelConfig(name="tiny", hidden_size=hidden, layers=layers, heads=hidden // 32)
        planned, real = planned_peak(config, sequences, positions), real_peak(config, sequences, positions)
        shape = f"{hidden} x {layers}, {sequences} x {positions}"
        print(f"| {shape} | {planned / MIB:.1f} | {real / MIB:.1f} | {planned / real:.3f} |")
    print()


def planned_peak(config: ModelConfig, sequences: int, positions: int) -> float:
    """Returns what the plan says of a step: weights, gradients, states, activations and the head."""
    model = read_model_config(config)
    size, found = size_of(model, None), training_pass(model, Method(False), sequences, positions)
    held = 4 * size.parameters + (4 + STATES["adamw"]) * size.trained
    return held + found.copies + found.activations + found.rest


def real_peak(config: ModelConfig, sequences: int, positions: int) -> float:
    """Returns the most bytes that tensors take at once in the second of two steps."""
    policy = load_policy(config, torch.device("cpu"), seed=0)
    state = start_state(policy, learning_rate=1e-3, adam_betas=[0.9, 0.98], weight_decay=0.01)
    batch = [Example([5], [6] * (positions - 1)) for _ in range(sequences)]
    backward(policy, batch, sequences)
    apply_gradient(state, "sft", 1e-3, 1.0)
    states = [value for own in state.optimizer.state.values() for value in own.values() if torch.is_tensor(value)]
    there = [*policy.model.parameters(), *policy.model.buffers(), *states]
    with LiveMemory([]) as memory:  # gradients are born in the step
        backward(policy, batch, sequences)
    return memory.peak + sum(tensor.untyped_storage().nbytes() for tensor in there)


def compare_time(folder: Path) -> None:
    """Prints what the plan forecasts from a short run, and what the runs then take, RL and evaluation together."""
    made: dict[str, Path] = {}

    def run_once(overrides: list[str]) -> Path:
        key = " ".join(overrides)
        made[key] = made.get(key) or run(folder, overrides)
        return made[key]

    print("| run | by a run of | forecast s | measured s | ratio |\n|---|---|---:|---:|---:|")
    for base, overrides in FORECASTS:
        forecast = forecast_seconds(folder, run_once(base), overrides)
        measured = sum(rl_seconds(run_once(overrides)))
        names = f"{' '.join(overrides)} | {' '.join(base) or 'the tiny model'}"
        print(f"| {names} | {forecast:.1f} | {measured:.1f} | {forecast / measured:.2f} |", flush=True)


def run(folder: Path, overrides: list[str]) -> Path:
    """Makes a run and returns its folder."""
    before = {*folder.glob("runs/*/run.json")}
    command = [sys.executable, "-m", "klear_lab.run", *SHORT, *overrides]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (made,) = {*folder.glob("runs/*/run.json")} - before
    return made.parent


def rl_seconds(path: Path) -> list[float]:
    """Returns the seconds of a run's stages after SFT."""
    return [seconds for stage, seconds in seconds_taken(RunFolder(path)).items() if stage != "SFT"]


def forecast_seconds(folder: Path, short: Path, overrides: list[str]) -> float:
    """Returns the seconds that the plan forecasts for a run's stages after SFT."""
    command = [sys.executable, "-m", "klear_lab.plan", *SHORT, *overrides, "--like", str(short)]
    subprocess.run([*command, "--json", "plan.json"], cwd=folder, check=True, capture_output=True)
    (arm,) = json.loads((folder / "plan.json").read_text())["arms"]
    return sum(cost["seconds"] for cost in arm["costs"] if cost["stage"] != "SFT")


if __name__ == "__main__":
    main()
