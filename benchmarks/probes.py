"""What the probes cost: processor seconds of each, a share of those of the whole RL step.

    python benchmarks/probes.py [--steps 24] [key=value ...]

Runs the RL of a run at scale=small in a temporary folder, after a short SFT, with every probe wrapped in a clock.
Given keys are those of klear_lab.run.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from klear_lab.config import register
from klear_lab.pipeline import run_pipeline
from klear_lab.rl import loss, stage, trainer
from klear_lab.validation import parse

CONF = Path(__file__).parents[1] / "conf"
PROBES = (
    *((loss, "gradient_weight"), (trainer, "clip_metrics"), (trainer, "rollout_metrics")),
    *((stage, "histograms"), (stage, "most_clipped"), (stage, "last_update_frame")),
)


def clocked(function: Callable[..., Any], name: str, seconds: Counter[str]) -> Callable[..., Any]:
    """The same function, its processor time added to `seconds`."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        started = time.process_time()
        try:
            return function(*arguments, **keywords)
        finally:
            seconds[name] += time.process_time() - started

    return call


def main() -> None:
    """Prints one line a probe, and their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=24, help="RL steps")
    parser.add_argument("overrides", nargs="*", help="keys of klear_lab.run, e.g. rl.responses_per_prompt=16")
    arguments = parser.parse_args()
    seconds: Counter[str] = Counter()
    for module, name in PROBES:
        setattr(module, name, clocked(getattr(module, name), name, seconds))
    trainer.train_step = clocked(trainer.train_step, "step", seconds)
    stage.write_probes = clocked(stage.write_probes, "write", seconds)
    register()
    with tempfile.TemporaryDirectory() as folder:
        given = [f"runs_dir={folder}", f"rl.steps={arguments.steps}", "logger=none", "sft.steps=150"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose("config", overrides=[*given, "eval.every=1000", *arguments.overrides])
        run_pipeline(parse(composed), composed)
    whole = seconds.pop("step") + seconds["write"]
    seconds["writing files"] = seconds.pop("write") - sum(seconds[n] for m, n in PROBES if m is stage)
    for name, spent in [*seconds.most_common(), ("all probes", seconds.total())]:
        print(f"{name:20} {spent / arguments.steps * 1000:7.1f} ms a step  {spent / whole:6.2%}")
    print(f"{'whole step':20} {whole / arguments.steps * 1000:7.1f} ms")


if __name__ == "__main__":
    main()
