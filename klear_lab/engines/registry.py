"""Which engines can train by RL, by the name in the config. Their modules are imported where they are chosen.

An engine owns the loop: it takes a run and the policy that SFT left, trains that policy in place, and leaves
metrics, evaluations and a checkpoint to go on from in the run's folder. `local` is klear_lab's own loop, in one
process and on one device, deterministic and resumable: the reference for every other.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

from klear_lab.config import Config
from klear_lab.engines.trl import checks as trl_checks
from klear_lab.engines.trl.checkpoints import find_checkpoint as find_trl_checkpoint
from klear_lab.policy.model import Policy
from klear_lab.rl.stage import train_rl
from klear_lab.run_context import RunContext

# The path is the checkpoint to go on from, None to start anew.
Engine = Callable[[RunContext, Policy, Path | None], None]


def train_with_trl(run: RunContext, policy: Policy, saved: Path | None) -> None:
    """Trains with TRL's GRPOTrainer."""
    # TRL loads it where it is installed, and it misses kernels that nobody asked for.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from klear_lab.engines.trl.engine import train

    train(run, policy, saved)


def missing_engine(config: Config) -> Iterator[str]:
    """Yields a line for what the config's engine lacks on this machine."""
    yield from trl_checks.missing(config)


ENGINES: dict[str, Engine] = {"local": train_rl, "trl": train_with_trl}
# Engines with checkpoints of their own: what finds the last one in a run's folder, and its RL step.
OWN_CHECKPOINTS: dict[str, Callable[[Path], tuple[Path, int] | None]] = {"trl": find_trl_checkpoint}
