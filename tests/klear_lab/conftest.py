"""A tiny policy, and smoke-scale configs composed from the real conf/ and run."""

import copy
import functools
import os
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from klear_lab.config import ModelConfig, register
from klear_lab.pipeline import run_pipeline
from klear_lab.policy.model import load_policy
from klear_lab.validation import parse

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Only a machine that loses power needs what a fsync waits for: a hundred times a run."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@functools.cache
def composed_once(overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=[*overrides])


@pytest.fixture
def composed_config():
    """A function from overrides to a composed config, smoke scale, no wandb, in whatever `runs_dir` is given.

    Composing takes a third of a small run's time, and most runs differ only in where they are kept.
    """
    register()

    def build(*overrides):
        places = [override for override in overrides if override.startswith(("runs_dir=", "cache_dir="))]
        others = [override for override in overrides if override not in places]
        composed = copy.deepcopy(composed_once(("scale=smoke", "logger=none", "progress=off", *others)))
        for place in places:
            key, _, path = place.partition("=")
            composed[key] = path
        return composed

    return build


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
