"""A tiny policy, and smoke-scale configs composed from the real conf/ and run."""

import copy
import functools
import os
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser

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


def composed_of(overrides):
    """What Hydra composes of overrides, of which groups are composed once and values set in a copy, as it does.

    Composing takes a third of a small run's time, and most configs of tests differ in values alone.
    """
    groups, values = [], []
    for override in OverridesParser.create().parse_overrides([*overrides]):
        (values if is_value(override) else groups).append(override)
    composed = copy.deepcopy(composed_once(tuple(override.input_line for override in groups)))
    ConfigLoaderImpl._apply_overrides_to_config(values, composed)
    return composed


def is_value(override):
    """Whether an override sets a key of the config, which takes no file to compose."""
    key = override.key_or_group
    of_hydra = key == "hydra" or key.startswith(("hydra.", "hydra/"))
    is_group = (ROOT / "conf" / key).is_dir() and not isinstance(override.value(), dict)
    return not (of_hydra or is_group or override.package)


@pytest.fixture
def composed_config():
    """A function from overrides to a composed config, smoke scale, no wandb, in whatever `runs_dir` is given."""
    register()
    return lambda *overrides: composed_of(("scale=smoke", "logger=none", "progress=off", *overrides))


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
