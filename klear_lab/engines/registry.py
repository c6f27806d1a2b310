"""Which engines can train by RL, by the name in the config. Their modules are imported where they are chosen.

An engine owns the loop: it takes a run and the policy that SFT left, trains that policy in place, and leaves
metrics, evaluations and a checkpoint to go on from in the run's folder. `local` is klear_lab's own loop, in one
process and on one device, deterministic and resumable: the reference for every other.
"""

from collections.abc import Callable
from pathlib import Path

from klear_lab.policy.model import Policy
from klear_lab.rl.stage import train_rl
from klear_lab.run_context import RunContext

# The path is the checkpoint to go on from, None to start anew.
Engine = Callable[[RunContext, Policy, Path | None], None]

ENGINES: dict[str, Engine] = {"local": train_rl}
