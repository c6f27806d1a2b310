"""The processes of one launch: rank 0 leads a run, the others follow it through RL.

    torchrun --nproc_per_node 2 -m klear_lab.run engine=trl               (processors or GPUs)
    accelerate launch --config_file FILE -m klear_lab.run engine=trl      (GPUs: FSDP, DeepSpeed)

start the same command several times. The leader prepares data, trains SFT, owns the run folder, draws prompts,
scores and evaluates; a follower waits for RL, takes over the leader's weights, and then does what it is told:
sample a share of the responses, save its part, train on its share of the next mini-batches. Without a launcher
there is one process, and telling does nothing.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from klear_lab.config import Config

# SFT may take days, and a process that has died takes the whole launch with it, whatever this is.
PATIENCE = timedelta(days=30)


def count() -> int:
    """Returns the number of processes that the launcher started, 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Returns this process's place among them; 0 leads."""
    return int(os.environ.get("RANK", "0"))


def follows(config: Config) -> bool:
    """Tells whether this process follows the leader of its launch, instead of working on a run by itself."""
    return config.engine.name == "trl" and rank() > 0


@contextmanager
def led(config: Config) -> Iterator[None]:
    """Connects a leader with its followers; lets them go at the end where the run had no RL left to do.

    A leader that fails just leaves: the launcher then ends the others.
    """
    if config.engine.name != "trl" or count() == 1:
        yield
        return
    connect(config)
    yield
    tell("end")


def connect(config: Config) -> None:
    """Joins this process to the others of its launch."""
    from accelerate import PartialState

    from klear_lab.policy.model import choose_device  # not above: configs are checked without torch

    PartialState(cpu=choose_device(config.device).type == "cpu", timeout=PATIENCE)


def tell(kind: str, *content: Any) -> None:
    """Sends the followers a message, where there are any. Its `kind` says what to do."""
    if count() > 1:
        import torch.distributed

        torch.distributed.broadcast_object_list([(kind, *content)], src=0)


def hear() -> tuple[Any, ...]:
    """Waits for the leader's next message."""
    import torch.distributed

    message: list[Any] = [None]
    torch.distributed.broadcast_object_list(message, src=0)
    return tuple(message[0])


def gather(own: Any) -> list[Any]:
    """Collects one object of each process at the leader, in their order; followers get an empty list."""
    if count() == 1:
        return [own]
    import torch.distributed

    found: list[Any] | None = [None] * count() if rank() == 0 else None
    torch.distributed.gather_object(own, found, dst=0)
    return found or []


def share_weights(model: Any) -> None:
    """Gives every process the leader's weights."""
    if count() > 1:
        import torch.distributed

        for weight in model.state_dict().values():
            torch.distributed.broadcast(weight, src=0)


def own_share(things: Sequence[Any]) -> list[Any]:
    """Returns this process's part of what all share: every so many, so that neighbours part."""
    return [*things[rank() :: count()]]


def in_order(shares: Sequence[Sequence[Any]]) -> list[Any]:
    """Puts the shares of all processes back into the order that `own_share` took them from."""
    total = sum(map(len, shares))
    return [shares[i % len(shares)][i // len(shares)] for i in range(total)]
