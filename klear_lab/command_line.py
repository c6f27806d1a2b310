"""What was typed, looked at before Hydra sees it: flags that can't go together, the main config, group choices.

Hydra itself raises a bare ValueError for some of it, and takes another config than the one named for some.
"""

import argparse
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from klear_lab.config import Config, ConfigError

CONF = Path(__file__).parents[1] / "conf"
SAVED = "_saved_"  # the name under which Hydra finds a saved config; no file has it
AGAIN = "`python -m klear_lab.run --config-path runs/<run_id>` runs a saved config again"


def check_flags(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for flags of Hydra that don't go together, which it answers with a traceback."""
    if args.experimental_rerun is not None:
        raise ConfigError(f"--experimental-rerun: isn't supported; {AGAIN}")
    modes = {
        "--run": args.run,
        "--multirun": args.multirun,
        "--cfg": args.cfg is not None,
        "--info": args.info is not None,
        "--shell-completion": args.shell_completion,
    }
    chosen = [flag for flag, given in modes.items() if given]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)}: can't go together; leave out all but one")
    if args.resolve and not (args.cfg or args.help):
        raise ConfigError("--resolve: goes with --cfg job, which shows the config, or with --help")
    if args.package is not None and not args.cfg:
        raise ConfigError(f"--package {args.package}: goes with --cfg job, of which it shows a part")


def only_prints(args: argparse.Namespace) -> bool:
    """Whether the command shows something and runs nothing."""
    return bool(args.help or args.hydra_help or args.cfg or args.info or args.shell_completion)


def end_with_the_reader() -> None:
    """Lets the process end quietly where `head` or a pager that reads its output has gone."""
    if sys.stdout is sys.__stdout__:  # not where a program calls us and reads what we print itself
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Adds Hydra's flags that say which config a command composes; `find_main_config` reads them."""
    parser.add_argument("-cn", "--config-name", metavar="NAME", help="another main config, as for a run")
    parser.add_argument("-cd", "--config-dir", metavar="DIR", help="where to look for configs of your own, too")
    parser.add_argument("-cp", "--config-path", metavar="DIR", help="a run's folder, or where to look first")


@contextmanager
def opened_hydra(args: argparse.Namespace) -> Iterator[Hydra]:
    """Opens Hydra for a command that composes configs and runs none; `find_main_config` has set where it looks."""
    version.setbase("1.3")
    search_path = create_config_search_path(args.config_path)
    if args.config_dir is not None:
        search_path.prepend("command-line", f"file://{args.config_dir}", SearchPathQuery(provider="schema"))
    try:
        yield Hydra.create_main_hydra2("klear_lab", search_path)
    finally:
        GlobalHydra.instance().clear()


def find_main_config(args: argparse.Namespace) -> None:
    """Sets where Hydra looks and what it composes, from --config-path, --config-dir and --config-name.

    A main config without a defaults list is a whole one, such as a run folder's, and is composed as it is. Raises
    `ConfigError` for a folder or file that isn't there, and for one that Hydra would never read.
    """
    given = args.config_path
    packaged = given is not None and given.startswith("pkg://")
    first = CONF if given is None or packaged else existing_folder("--config-path", given)
    second = None if args.config_dir is None else existing_folder("--config-dir", args.config_dir)
    name = (args.config_name or "config").removesuffix(".yaml")
    if second is not None and not packaged:
        check_hidden(first, second, args.config_dir)
    args.config_path, args.config_name = given if packaged else str(first), name
    # klear_lab's groups stay within reach of a main config that lies elsewhere.
    args.config_dir = str(second or CONF) if second is not None or first != CONF else None
    if packaged:
        return
    folders = [folder for folder in (first, args.config_dir and Path(args.config_dir)) if folder]
    file = next((file for folder in folders if (file := folder / f"{name}.yaml").is_file()), None)
    if file is None:
        there = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
        raise ConfigError(
            f"--config-name {name}: there is no {name}.yaml in {' or '.join(map(str, folders))}; "
            f"there {'are' if there else 'is none'} {', '.join(there)}".rstrip()
        )
    content = read_yaml(file)
    check_defaults(file, content.get("defaults", []))
    if "defaults" not in content:
        register_saved(file, content)
        args.config_path, args.config_name = str(CONF), SAVED


def existing_folder(flag: str, typed: str) -> Path:
    """Returns the folder that a flag names, from where the command was typed. Raises `ConfigError` for none."""
    folder = Path(typed).expanduser().absolute()
    if folder.is_file():
        raise ConfigError(f"{flag} {typed}: is a file; name its folder, and the file with --config-name")
    if not folder.is_dir():
        raise ConfigError(f"{flag} {typed}: there is no such folder")
    return folder


def check_hidden(first: Path, second: Path, typed: str) -> None:
    """Raises `ConfigError` where --config-dir has a file of a name that comes first elsewhere, which hides it."""
    for file in sorted(path for folder in (first, *groups_in(first)) for path in folder.glob("*.yaml")):
        inside = file.relative_to(first)
        if second != first and (second / inside).is_file():
            raise ConfigError(
                f"--config-dir {typed}: its {inside} would never be read, since {first.name}/ has one of that "
                f"name; rename it ({AGAIN})"
            )


def groups_in(folder: Path) -> list[Path]:
    """Returns the folders of config groups, which may lie in one another."""
    return [path for path in folder.glob("**/") if path != folder] + [
        path for path in folder.iterdir() if path.is_symlink() and path.is_dir()
    ]


def read_yaml(file: Path) -> DictConfig:
    """Reads a main config. Raises `ConfigError` for a file that isn't a mapping in YAML."""
    try:
        content = OmegaConf.load(file)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: can't be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{file}: must be a mapping of keys to values")
    return content


def check_defaults(file: Path, defaults: Any) -> None:
    """Raises `ConfigError` for a defaults list that isn't one, which Hydra answers with a traceback."""
    items = defaults if isinstance(defaults, list | ListConfig) else [None]
    if not all(isinstance(item, str | DictConfig) for item in items):
        raise ConfigError(f"{file}: defaults={defaults}: must be a list of configs, e.g. [config, _self_]")


def register_saved(file: Path, content: DictConfig) -> None:
    """Makes a whole config known to Hydra as `SAVED`, typed by the schema and with klear_lab's Hydra settings.

    The groups that change no result can still be chosen. Raises `ConfigError` for a file that lacks keys.
    """
    absent = [f.name for f in fields(Config) if f.default is MISSING and f.name not in content]
    if absent:
        raise ConfigError(
            f"{file}: has no defaults list and isn't a whole config either ({', '.join(absent)} missing); begin "
            "it with `defaults: [config, _self_]` to change the default one"
        )
    main = OmegaConf.load(CONF / "config.yaml")
    of_hydra = [item for item in main.defaults if isinstance(item, DictConfig) and "override" in str(item)]
    whole = literal(OmegaConf.to_container(content))
    values = {key: value for key, value in whole.items() if key not in ("launcher", "hydra")}
    name = OmegaConf.select(content, "logger.name")
    logger = [{"logger": name}] if (CONF / "logger" / f"{name}.yaml").is_file() else []
    defaults = ["schema", "_self_", *logger, {"launcher": "basic"}, *of_hydra]
    ConfigStore.instance().store(name=SAVED, node={"defaults": defaults, **values, "hydra": main.hydra})


def literal(value: Any) -> Any:
    """Returns a value whose texts OmegaConf doesn't take for interpolations: a resolved config has none."""
    if isinstance(value, dict):
        return {key: literal(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [literal(inner) for inner in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: rf"{found[1] * 2}\${{", value)
    return value


def read_overrides(lines: Sequence[str], folders: Sequence[str | None]) -> list[Override]:
    """Parses overrides. Raises `ConfigError` for a choice that a group can't have; `folders` hold the groups."""
    overrides = OverridesParser.create().parse_overrides([*lines])
    paths = [Path(folder) for folder in folders if folder is not None]
    for override in overrides:
        group = override.key_or_group
        if not group:
            raise ConfigError(f"{override.input_line}: must be key=value")
        if override.is_delete() and group.startswith("clip_method."):
            raise ConfigError(f"{override.input_line}: its default would be taken; set {group}=... instead")
        options = {path.stem for folder in paths for path in (folder / group).glob("*.yaml")}
        if override.is_delete() or not (options or group.startswith("hydra/")):
            continue
        for value in values_of(override):
            if isinstance(value, list):
                values = ",".join(map(str, value))
                raise ConfigError(f"{override.input_line}: a list is no choice; {group}={values} -m is a sweep")
            if not isinstance(value, str | dict):
                what = f"one of {', '.join(sorted(options))}" if options else "the name of one of its options"
                raise ConfigError(f"{override.input_line}: must be {what}; leave it out for the default")
    return overrides


def values_of(override: Override) -> Iterator[Any]:
    """Yields the values that an override gives, several in a sweep; none for a glob, whose options are there."""
    if override.value_type == ValueType.ELEMENT:
        yield override.value()
    elif override.is_choice_sweep() and override.value_type != ValueType.GLOB_CHOICE_SWEEP:
        yield from (Override._convert_value(value) for value in override.sweep_iterator())
