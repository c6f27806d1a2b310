"""What the arms of a sweep are: composed once, where the sweep starts, exactly as Hydra would.

Hydra composes an arm anew when it checks it and again when it starts it, in whichever process runs it. A config
file edited in between would change the arms to come. So `FixedArms` takes the place of Hydra's config loader and
hands out what was composed and checked here.
"""

import argparse
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from klear_lab.command_line import find_main_config, opened_hydra, read_overrides
from klear_lab.composing import GroupsOnce, without_hydra
from klear_lab.config import Config, ConfigError, register
from klear_lab.identity import CHANGES_NO_RESULT, run_id
from klear_lab.preflight import check_machine
from klear_lab.storage.run_folder import RunFolder
from klear_lab.tracking import cut, run_label
from klear_lab.validation import USERS_ERRORS, explain, parse

LONGEST_NAME = 120
PICKLES = "arms.pickle"  # in the sweep folder, where a process that runs one arm finds the others


@dataclass
class Arm:
    """One run of a sweep. `composed` has Hydra's own settings too; `values` are those of the swept keys."""

    overrides: tuple[str, ...]
    composed: DictConfig
    config: Config
    run_id: str
    values: dict[str, Any]


class FixedArms(ConfigLoaderImpl):
    """Hydra's config loader, but for arms, which stay as they were when the sweep started."""

    def __init__(self, loader: ConfigLoader, arms: Sequence[Arm]) -> None:
        """`loader` composed the arms. They are kept as bytes, so that every arm Hydra gets is a copy."""
        super().__init__(loader.get_search_path())
        self.arms = {arm.overrides: pickle.dumps(arm.composed) for arm in arms}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """Returns an arm as it was composed. Raises `ConfigError` for one that wasn't there then."""
        if (kept := self.arms.get(tuple(sweep_overrides))) is None:
            raise ConfigError(f"{' '.join(sweep_overrides)}: wasn't an arm when the sweep started; start it again")
        return pickle.loads(kept)


def sweep_overrides(master: DictConfig, loader: ConfigLoader) -> list[Override]:
    """Returns what a sweep is made of: its file's keys, then what was typed."""
    params = OmegaConf.select(master, "hydra.sweeper.params") or {}
    lines = [*(f"{key}={value}" for key, value in params.items()), *master.hydra.overrides.task]
    read_overrides(lines, [source.path for source in loader.get_sources() if source.scheme() == "file"])
    return OverridesParser.create(config_loader=loader).parse_overrides(lines)


def read_arms(master: DictConfig, loader: ConfigLoader) -> list[Arm]:
    """Composes and checks all arms. Raises `ConfigError` that names the arm and its problems."""
    overrides = sweep_overrides(master, loader)
    check_keys(overrides)
    (lines,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    once = GroupsOnce(loader)
    arms = [read_arm(number, tuple(line), master, once) for number, line in enumerate(lines)]
    if not arms:
        empty = next(o for o in overrides if o.is_sweep_override() and not [*o.sweep_iterator()])
        raise ConfigError(f"{empty.input_line}: matches nothing, so there is no arm")
    check_different(overrides, arms)
    for arm, values in zip(arms, differing_values(overrides, arms), strict=True):
        arm.values = values
    return arms


def read_without_launch(master: DictConfig, loader: ConfigLoader) -> list[Arm]:
    """Does the work of `read_arms` for a sweep that Hydra doesn't launch, and leaves Hydra's state as it was."""
    before = HydraConfig.instance().cfg
    try:
        HydraConfig.instance().set_config(master)  # ${hydra:...} resolves
        OmegaConf.set_readonly(master.hydra, False)
        return read_arms(master, loader)
    finally:
        HydraConfig.instance().cfg = before


def check_machines(arms: Sequence[Arm]) -> None:
    """Raises `ConfigError` that names the first arm that would miss something on this machine."""
    for arm in arms:
        try:
            check_machine(arm.config, arm.run_id)
        except ConfigError as error:
            raise ConfigError(f"arm {' '.join(arm.overrides)}:\n{error}") from error


def check_sweep(overrides: Sequence[str]) -> None:
    """Composes and checks what `klear_lab.run ... -m` would run. Raises `ConfigError` where an arm can't run."""
    register()
    args = argparse.Namespace(config_path=None, config_dir=None, config_name=None)
    try:
        find_main_config(args)
        with opened_hydra(args) as hydra:
            master = hydra.compose_config(args.config_name, [*overrides], RunMode.MULTIRUN)
            check_machines(read_without_launch(master, hydra.config_loader))
    except USERS_ERRORS as error:
        raise ConfigError(explain(error)) from error


def check_keys(overrides: Sequence[Override]) -> None:
    """Raises `ConfigError` for a swept key that can't tell arms apart."""
    for override in overrides:
        if not override.is_sweep_override():
            continue
        if override.key_or_group == "sweep":
            raise ConfigError(f"{override.input_line}: one sweep at a time; call this once for each")
        if override.key_or_group.split(".")[0] in CHANGES_NO_RESULT:
            raise ConfigError(
                f"{override.input_line}: {override.key_or_group} changes no result, so its values are one run "
                "and no arms; give one value"
            )
        if override.is_hydra_override():
            raise ConfigError(f"{override.input_line}: Hydra's own settings can't be swept; give one value")
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line}: an interval has no end of values; list some, or use range()"
            )


def read_arm(number: int, overrides: tuple[str, ...], master: DictConfig, loader: ConfigLoader) -> Arm:
    """Composes and checks one arm. Raises `ConfigError` that names it."""
    try:
        composed = loader.load_sweep_config(master, [*overrides])
        with open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = str(number), number
            composed.hydra.sweep.subdir = "."
        before = HydraConfig.instance().cfg
        try:
            HydraConfig.instance().set_config(composed)  # ${hydra:...} resolves to the arm's own
            own = without_hydra(composed)
            config = parse(own)
            fix_source(composed, config)
            identity = run_id(own)
            place = str(composed.hydra.sweep.dir)
        finally:
            HydraConfig.instance().cfg = before
        OmegaConf.set_readonly(composed.hydra, False)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"arm {' '.join(overrides)}:\n{explain(error)}") from error
    if place != str(master.hydra.sweep.dir):
        raise ConfigError(
            f"hydra.sweep.dir={place}: all arms of a sweep share one folder, and this one depends on the arm; "
            "results go to <runs_dir>/<run_id> anyway"
        )
    return Arm(overrides, composed, config, identity, {})


def fix_source(composed: DictConfig, config: Config) -> None:
    """Keeps the hash of a file with a clip method of one's own as it is now, so that no arm takes another."""
    if "source" in config.clip_method:
        composed.clip_method.source = config.clip_method["source"]


def check_different(overrides: Sequence[Override], arms: Sequence[Arm]) -> None:
    """Raises `ConfigError` for two arms that are one run."""
    for override in (o for o in overrides if o.is_sweep_override()):
        values = [*override.sweep_string_iterator()]
        for value in values:
            if values.count(value) > 1:
                same = f"{override.key_or_group}={value}"
                raise ConfigError(
                    f"{override.input_line}: {same} and {same} are one run; leave one of the values out"
                )
    first: dict[str, Arm] = {}
    for arm in arms:
        other = first.setdefault(arm.run_id, arm)
        if other is not arm:
            pairs = [(a, b) for a, b in zip(other.overrides, arm.overrides, strict=True) if a != b]
            one, two = (" ".join(words) for words in zip(*pairs, strict=True))
            raise ConfigError(
                f"{one} and {two} are one run, {arm.run_id}: all their settings are the same; leave one out"
            )


def differing_values(overrides: Sequence[Override], arms: Sequence[Arm]) -> Iterator[dict[str, Any]]:
    """Yields each arm's values of the swept keys, the seed aside.

    A group's value is the option's name. Where mappings were typed, as in clip_method={eps_low: 0.1},{eps_low:
    0.3}, the keys in them are the ones that tell the arms apart.
    """
    swept = [o for o in overrides if o.is_sweep_override() and o.key_or_group != "seed"]
    keys: dict[str, None] = {}
    for override in swept:
        values = [Override._convert_value(value) for value in override.sweep_iterator()]
        inner = [
            leaf for value in values if isinstance(value, dict) for leaf in leaves(override.key_or_group, value)
        ]
        if not inner or not all(isinstance(value, dict) for value in values):
            keys[override.key_or_group] = None
        keys |= dict.fromkeys(inner)
    for arm in arms:
        choices = arm.composed.hydra.runtime.choices
        yield {key: choices[key] if key in choices else plain(OmegaConf.select(arm.composed, key)) for key in keys}


def leaves(key: str, value: Any) -> Iterator[str]:
    """Yields the dotted keys of what a mapping holds."""
    if isinstance(value, dict) and value and all(str(name).isidentifier() for name in value):
        for name, inner in value.items():
            yield from leaves(f"{key}.{name}", inner)
    else:
        yield key


def plain(value: Any) -> Any:
    """Converts a config node to JSON types."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def sweep_name(overrides: Sequence[Override]) -> str:
    """Names a sweep after the overrides that were typed, without those that can't change a result."""
    typed = [o for o in overrides if o.key_or_group.split(".")[0] not in CHANGES_NO_RESULT]
    typed = [o for o in typed if not o.is_hydra_override()]
    words = [o.input_line for o in typed if o.key_or_group != "seed"] or [o.input_line for o in typed]
    return cut(" ".join(str(word) for word in words), LONGEST_NAME) or "defaults"


def write_arms(arms: Sequence[Arm], folder: Path, name: str) -> None:
    """Writes down what a sweep was when it started: sweep.json for people, and its arms for its processes."""
    listed = [
        {
            "name": run_label(arm.values, arm.config.seed),
            "run_id": arm.run_id,
            "seed": arm.config.seed,
            "arm": arm.values,
            "folder": str(RunFolder.of(arm.config, arm.run_id).path),
        }
        for arm in arms
    ]
    about = {"sweep": name, "directory": str(Path.cwd()), "arms": listed}
    (folder / "sweep.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (folder / PICKLES).write_bytes(pickle.dumps([pickle.dumps(arm.composed) for arm in arms]))


def kept_arm(folder: Path, number: int) -> DictConfig:
    """Reads an arm as it was composed when its sweep started, with Hydra's own settings."""
    composed = pickle.loads(pickle.loads((folder / PICKLES).read_bytes())[number])
    assert isinstance(composed, DictConfig)
    return composed
