"""How long stages really took in a run, as a multiple of what its plan says: a forecast instead of an assumption.

    factor of a stage = seconds that the run took for it / seconds that the plan of the same config says

Each planned stage is multiplied with its factor. What the plan can't know (how many groups are dropped, how fast
the machine is with such a model, what verifying takes) is in the factor, as it was in that run. Responses are
taken to be as long as in that run: those that ended by themselves, and those that were cut, each for itself.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from klear_lab.config import Config, ConfigError
from klear_lab.plan.arm_plan import ArmPlan
from klear_lab.plan.cards import Card
from klear_lab.plan.costs import costs_of, evaluations_of
from klear_lab.plan.memory import Assumed, ResponseLengths
from klear_lab.plan.model_size import read_model_config
from klear_lab.rl.phases import total_steps
from klear_lab.storage.run_folder import RunFolder


@dataclass(frozen=True)
class Pace:
    """Holds the factor of each stage that a run has measured; `source` is its folder."""

    source: Path
    factors: dict[str, float]


def composed_of(path: Path) -> DictConfig:
    """Reads the config of a run. Raises `ConfigError` where the folder isn't one of a run."""
    if not (path / "config.yaml").exists():
        raise ConfigError(f"--like {path}: isn't the folder of a run; name one that has a config.yaml")
    composed = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(path / "config.yaml"))
    assert isinstance(composed, DictConfig)
    return composed


def lengths_of(path: Path, config: Config) -> ResponseLengths | None:
    """Measures the responses of a run's rollouts; None where it has sampled none."""
    steps = [line for line in RunFolder(path).metrics() if line.get("rollout/length_mean") is not None]
    if not steps:
        return None
    mean = total(steps, "rollout/length_mean") / len(steps)
    truncated = total(steps, "rollout/truncated_fraction") / len(steps)
    cut = truncated * config.rl.max_response_tokens
    return ResponseLengths((mean - cut) / (1 - truncated) if truncated < 1 else 0.0, truncated)


def pace_of(path: Path, config: Config, card: Card, assumed: Assumed) -> Pace:
    """Measures a run, finished or not, of this config. Raises `ConfigError` where it has taken no step."""
    folder = RunFolder(path)
    taken = seconds_taken(folder)
    if not taken:
        raise ConfigError(f"--like {path}: the run has taken no step yet; name one that has")
    costs = costs_of(config, path.name, read_model_config(config.model), card, assumed)
    shares = shares_done(config, folder.metrics())
    planned = {cost.stage: cost.seconds * shares[cost.stage] for cost in costs}
    factors = {stage: taken[stage] / planned[stage] for stage in taken if planned.get(stage, 0.0) > 0}
    return Pace(path, factors)


def seconds_taken(folder: RunFolder) -> dict[str, float]:
    """Returns the seconds of each stage that the run has measured; verifying counts with rollouts.

    An SFT that came from the cache isn't measured.
    """
    rl = [line for line in folder.metrics() if line["stage"] == "rl"]
    found = {
        "rollouts": total(rl, "time/rollout_s") + total(rl, "time/reward_s"),
        "RL updates": total(rl, "time/train_s"),
        "evaluation": total(rl, "time/eval_s"),
    }
    sft = folder.record.get("stages", {}).get("sft")
    if sft is not None and not sft["from_cache"]:
        found["SFT"] = sft["seconds"]
    return {stage: seconds for stage, seconds in found.items() if seconds > 0}


def shares_done(config: Config, lines: list[dict[str, Any]]) -> dict[str, float]:
    """Returns the share of each stage's planned steps, or evaluations, that the run has finished."""
    rl = [line for line in lines if line["stage"] == "rl"]
    done = sum(line["step"] > 0 for line in rl) / max(1, total_steps(config.rl))
    evaluated = sum("time/eval_s" in line for line in rl) / evaluations_of(config)
    return {"SFT": 1.0, "rollouts": done, "RL updates": done, "evaluation": evaluated}


def total(lines: Iterable[dict[str, Any]], key: str) -> float:
    """Sums a metric over the lines that have it."""
    return sum(line.get(key) or 0.0 for line in lines)


def paced(arm: ArmPlan, pace: Pace | None) -> ArmPlan:
    """Returns a plan whose stages take as long as they would at this pace; those without a factor stay."""
    if pace is None:
        return arm
    costs = [replace(cost, seconds=cost.seconds * pace.factors.get(cost.stage, 1.0)) for cost in arm.costs]
    return replace(arm, costs=costs)
