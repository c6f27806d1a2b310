"""Configs composed from the real conf/, as often as tests need them."""

import copy
import functools
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser

CONF = Path(__file__).parents[2] / "conf"
SMOKE = ("scale=smoke", "logger=none", "progress=off")


@functools.cache
def composed_once(overrides):
    """What Hydra composes of overrides, to be read alone."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
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
    is_group = (CONF / key).is_dir() and not isinstance(override.value(), dict)
    return not (of_hydra or is_group or override.package)
