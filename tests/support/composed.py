"""Configs composed from the real conf/, as often as tests need them."""

import functools
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from klear_lab.composing import GroupsOnce, without_hydra

CONF = Path(__file__).parents[2] / "conf"
SMOKE = ("scale=smoke", "logger=none", "progress=off")


@functools.cache
def composer():
    """Composes what Hydra would; a third of a small run's time would be composing, were groups composed anew."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return GroupsOnce(GlobalHydra.instance().hydra.config_loader)


def composed_of(overrides):
    """What Hydra composes of overrides, without its own settings."""
    return without_hydra(composer().load_configuration("config", [*overrides], RunMode.RUN, from_shell=False))
