"""A tiny policy, and smoke-scale configs composed from the real conf/ and run."""

import os

import pytest
import torch

from klear_lab.config import ModelConfig, register
from klear_lab.pipeline import run_pipeline
from klear_lab.policy.model import load_policy
from klear_lab.validation import parse
from support.composed import SMOKE, composed_of


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Only a machine that loses power needs what a fsync waits for: a hundred times a run."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def composed_config():
    """A function from overrides to a composed config, smoke scale, no wandb, in whatever `runs_dir` is given."""
    register()
    return lambda *overrides: composed_of((*SMOKE, *overrides))


@pytest.fixture
def config(composed_config):
    """A function from overrides to a parsed config."""
    return lambda *overrides: parse(composed_config(*overrides))


@pytest.fixture
def run(composed_config, tmp_path):
    """A function from overrides to the finished run's folder."""

    def start(*overrides, **arguments):
        composed = composed_config(f"runs_dir={tmp_path / 'runs'}", *overrides)
        return run_pipeline(parse(composed), composed, **arguments)

    return start


@pytest.fixture
def policy():
    """Untrained, 16 hidden, in float64 so that sums in another order differ by 1e-15 and not 1e-7."""
    made = load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2), torch.device("cpu"), seed=0)
    made.model.double()
    return made
