"""Writes a dry run of engine=verl: RL as a run starts it, SFT, evaluation, and README.md on how to run it all.

README.md lists the stages' commands in their order, and every setting of the chosen experiment with the comment of
its file, which says where the value comes from.
"""

import json
import logging
from pathlib import Path
from typing import Any

from klear_lab.config import Config, value_of
from klear_lab.data.prepare import PreparedData
from klear_lab.data.tokens import tokenized
from klear_lab.engines.verl.commented import Setting, file_of, settings_of
from klear_lab.engines.verl.evaluation import write_evaluation
from klear_lab.engines.verl.files import has_verl, starting_model, write_config, write_files
from klear_lab.engines.verl.sft import sft_script, sft_settings, trains_sft, write_sft_rows
from klear_lab.policy.model import load_codec
from klear_lab.progress import Display
from klear_lab.storage.files import replace_file
from klear_lab.storage.interruption import Stop
from klear_lab.storage.run_folder import RunFolder
from klear_lab.storage.stage_cache import cache_folder

log = logging.getLogger(__name__)

GROUPS = ("override /", "/")  # how a file's list of defaults begins the name of a group


def dry_run(config: Config, data: PreparedData, data_key: str, folder: RunFolder, stop: Stop) -> None:
    """Writes what verl would be started with, and tells how to start it.

    Raises `ConfigError` for rows that verl can't read, and for a configuration that it refuses.
    """
    place = write_files(config, data, folder)
    if sft := trains_sft(config):
        write_sft(config, data, data_key, folder, stop)
    evaluated = write_evaluation(config, data.benchmarks, place) if data.benchmarks else []
    commands = stages(config, place, sft, evaluated)
    replace_file(place / "README.md", readme(config, commands))
    if not has_verl():
        log.info("verl isn't installed here, so none of its classes has checked the configurations in %s", place)
    if starting_model(config, place) == str(place / "start") and not sft:
        log.info(
            "%s isn't there yet: without dry_run it is made by SFT, or copied with our stop tokens",
            place / "start",
        )
    told = "; ".join(command for _, command in commands)
    log.info("dry_run=true: nothing was trained. To train: %s; then this command without dry_run", told)


def write_sft(config: Config, data: PreparedData, data_key: str, folder: RunFolder, stop: Stop) -> None:
    """Writes what verl's SFT trainer is started with. Raises `ConfigError` where it refuses the configuration."""
    own = folder.path / "verl" / "sft"
    own.mkdir(exist_ok=True)
    codec, _ = load_codec(config.model)
    mode = "off" if config.progress == "off" else "lines"
    display = Display(folder.path.name, mode)
    table = tokenized(data.sft_rows, data_key, codec, cache_folder(config), stop, display)
    rows = write_sft_rows(config, data.sft_rows, table, own / "train.parquet")
    log.info("SFT on %d of %d rows (those within sft.max_tokens)", rows, len(table))
    write_config(own, "sft_trainer_engine", sft_settings(config, own, folder.path.name))
    replace_file(own / "sft.sh", sft_script(config))


def stages(config: Config, place: Path, sft: bool, evaluated: list[str]) -> list[tuple[str, str]]:
    """Returns what is to be run, in order: what it does, and its command."""
    engine = config.engine
    nodes = engine.nodes + engine.rollout_nodes
    several, srun = nodes > 1, "srun --nodes={} --ntasks-per-node=1 "
    everywhere = srun.format(nodes) if several else ""
    found = []
    if sft:
        trainers = srun.format(engine.nodes) if engine.nodes > 1 else ""
        found.append(("SFT, which leaves RL's first model in start/", f"{trainers}bash {place}/sft/sft.sh"))
    what = "RL, one phase after the other" if config.rl.phases else "RL"
    found.append((what, f"{everywhere}bash {place}/{'node.sh' if several else 'train.sh'}"))
    if evaluated:
        script = (
            f"{everywhere}env SCRIPT=evaluate.sh bash {place}/node.sh" if several else f"bash {place}/evaluate.sh"
        )
        found.append((f"evaluation: {'; '.join(evaluated)}", script))
        found.append(("the same at 64K tokens, with YaRN", f"{script} 64k"))
    return found


def readme(config: Config, commands: list[tuple[str, str]]) -> str:
    """Returns README.md."""
    listed = "\n".join(f"{n}. {what}\n\n       {command}\n" for n, (what, command) in enumerate(commands, 1))
    text = (
        f"# What verl is started with\n\n{listed}\nklear_lab's command without `dry_run` then finishes the run.\n"
    )
    if config.experiment is None or not file_of(config.experiment).exists():
        return text
    rows = [line_of(config, setting) for setting in settings_of(file_of(config.experiment))]
    table = "\n".join(["| key | value | source |", "|---|---|---|", *rows])
    return f"{text}\n## Settings of experiment={config.experiment}\n\n{table}\n"


def line_of(config: Config, setting: Setting) -> str:
    """Returns a setting's line of the table; one that this run changes says what the experiment has."""
    value, comment = shown(setting.value), setting.comment
    if not setting.key.startswith(GROUPS):
        now = shown(found_in(config, setting.key))
        comment += f" **Changed in this run; the experiment has {value}.**" if now != value else ""
        value = now
    key = setting.key.removeprefix("override /").removeprefix("/")
    return f"| `{key}` | `{value}` | {comment.replace('|', '&#124;')} |"


def found_in(config: Config, key: str) -> Any:
    """Returns a run's value of a key of the file, also within a phase; None for a phase that isn't there."""
    if not key.startswith("rl.phases["):
        value = config.clip_method if key.startswith("clip_method.") else None
        return value_of(config, key) if value is None else value.get(key.partition(".")[2])
    number, _, name = key.removeprefix("rl.phases[").partition("].")
    phases = config.rl.phases
    return phases[int(number)].get(name) if int(number) < len(phases) else None


def shown(value: Any) -> str:
    """Returns a value as the command line has it; numbers written in two ways are the same."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)
