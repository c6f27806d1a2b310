"""Which engines can train by RL, by the name in the config. Their modules are imported where they are chosen.

An engine owns the loop: it takes a run and the policy that SFT left, trains that policy in place, and leaves
metrics, evaluations and a checkpoint to go on from in the run's folder. `local` is klear_lab's own loop, in one
process and on one device, deterministic and resumable: the reference for every other.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from klear_lab.config import Config
from klear_lab.data.prepare import PreparedData
from klear_lab.policy.model import Policy
from klear_lab.rl.stage import train_rl
from klear_lab.run_context import RunContext
from klear_lab.storage.run_folder import RunFolder

# The path is the checkpoint to go on from, None to start anew.
Engine = Callable[[RunContext, Policy, Path | None], None]


def train_verl(run: RunContext, policy: Policy, saved: Path | None) -> None:
    """Trains with verl, in processes of its own."""
    from klear_lab.engines.verl import launch

    launch.train_verl(run, policy, saved)


def missing_engine(config: Config) -> Iterator[str]:
    """Yields a line for each thing that the engine needs and this machine doesn't have."""
    if config.engine.name == "verl":
        from klear_lab.engines.verl.launch import missing_verl

        yield from missing_verl(config)


def dry_run(config: Config, data: PreparedData, folder: RunFolder) -> None:
    """Writes what the engine would be started with; no other engine than verl has anything to write."""
    from klear_lab.engines.verl import launch

    launch.dry_run(config, data, folder)


ENGINES: dict[str, Engine] = {"local": train_rl, "verl": train_verl}
