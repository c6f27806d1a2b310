"""Which engines can train by RL, by the name in the config. Their modules are imported where they are chosen.

An engine owns the loop: it takes a run and the policy that SFT left, trains that policy in place, and leaves
metrics, evaluations and a checkpoint to go on from in the run's folder. `local` is klear_lab's own loop, in one
process and on one device, deterministic and resumable: the reference for every other.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from klear_lab.config import Config
from klear_lab.data.prepare import PreparedData
from klear_lab.engines.trl import checks as trl_checks
from klear_lab.engines.trl.checkpoints import find_checkpoint as find_trl_checkpoint
from klear_lab.policy.model import Policy
from klear_lab.rl.stage import train_rl
from klear_lab.run_context import RunContext
from klear_lab.storage.interruption import Stop
from klear_lab.storage.run_folder import RunFolder

# The path is the checkpoint to go on from, None to start anew.
Engine = Callable[[RunContext, Policy, Path | None], None]


def train_with_trl(run: RunContext, policy: Policy, saved: Path | None) -> None:
    """Trains with TRL's GRPOTrainer."""
    # TRL loads it where it is installed, and it misses kernels that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from klear_lab.engines.trl.engine import train

    train(run, policy, saved)


def train_with_verl(run: RunContext, policy: Policy, saved: Path | None) -> None:
    """Trains with verl, in processes of its own."""
    from klear_lab.engines.verl import launch

    launch.train_verl(run, policy, saved)


def missing_engine(config: Config) -> Iterator[str]:
    """Yields a line for each thing that the config's engine needs and this machine doesn't have."""
    yield from trl_checks.missing(config)
    if config.engine.name == "verl":
        from klear_lab.engines.verl.launch import missing_verl

        yield from missing_verl(config)


def dry_run(config: Config, data: PreparedData, data_key: str, folder: RunFolder, stop: Stop) -> None:
    """Writes what the engine would be started with; no other engine than verl has anything to write."""
    from klear_lab.engines.verl import recipe

    recipe.dry_run(config, data, data_key, folder, stop)


def policy_of_engine(run: RunContext) -> Policy | None:
    """Returns the policy after SFT where the engine's program has made one itself, None where we make it."""
    from klear_lab.engines.verl import launch

    if run.config.engine.name != "verl":
        return None
    return launch.policy_of_cluster(run.config, run.folder.path, run.device)


ENGINES: dict[str, Engine] = {"local": train_rl, "trl": train_with_trl, "verl": train_with_verl}
# Engines with checkpoints of their own: what finds the last one in a run's folder, and its RL step.
OWN_CHECKPOINTS: dict[str, Callable[[Path], tuple[Path, int] | None]] = {"trl": find_trl_checkpoint}
