"""A follower: takes part in the leader's RL, and writes nothing but its part of checkpoints."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from klear_lab.config import Config
from klear_lab.engines.trl.processes import connect, hear, share_weights
from klear_lab.engines.trl.sampling import sample_share
from klear_lab.policy.model import load_policy
from klear_lab.rl.trainer import Update
from klear_lab.sampling.samplers import open_sampler
from klear_lab.sampling.types import Sampler

if TYPE_CHECKING:
    from klear_lab.engines.trl.trainer import Trainer


def follow(config: Config) -> None:
    """Waits for the leader's RL and takes part in it; returns where there is none."""
    from accelerate import PartialState

    from klear_lab.engines.trl.trainer import Trainer

    logging.getLogger().setLevel(logging.WARNING)  # the leader says what happens
    connect(config)
    if config.cpu_threads is not None:
        torch.set_num_threads(config.cpu_threads)
    kind, *content = hear()
    if kind == "end":
        return
    output, saved = content
    policy = load_policy(config.model, PartialState().device, config.sft.seed)
    share_weights(policy.model)
    sampler = None if config.engine.vllm_server else open_sampler(config, policy)
    Trainer(config, policy, Follower(sampler), Path(output)).run(saved)
    hear()  # the leader ends the launch, once it has saved the model


class Follower:
    """Does between updates what the leader says."""

    def __init__(self, sampler: Sampler | None) -> None:
        """Draws its shares with `sampler`; None where a server draws all."""
        self.sampler = sampler

    def advance(self, trainer: "Trainer") -> bool:
        """Does what it hears until the next RL step begins; tells whether there is one."""
        while True:
            kind, *content = hear()
            if kind == "sample" and self.sampler is not None:
                sample_share(self.sampler, *content)
                self.sampler.sleep()
            elif kind == "save":
                trainer.save(*content)
            elif kind == "sync":
                trainer.vllm_generation.sync_weights()
            elif kind == "train":
                trainer.begin(*content)
                return True
            else:
                return False

    def add(self, update: Update) -> None:
        """Leaves results to the leader."""
