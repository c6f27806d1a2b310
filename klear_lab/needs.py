"""What a run needs of this machine beside places to write: data, models, engines, samplers, room on the device.

Nothing here asks the network: a name on the hub is taken for right until the run loads it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from klear_lab.config import Config, ConfigError
from klear_lab.data.read_rows import nearest
from klear_lab.data.sources import source_fingerprint
from klear_lab.data_source_config import ReasoningGymConfig, row_sets
from klear_lab.engines.registry import missing_engine
from klear_lab.plan.cards import this_gpu
from klear_lab.plan.refusals import refusals
from klear_lab.policy.model import choose_device
from klear_lab.sampling.samplers import missing_sampler
from klear_lab.storage.stage_cache import cache_folder
from klear_lab.verify.reasoning_gym import make_task

THREADS_A_CORE = 64  # far more than are of use; PyTorch crashes where it can't start as many as it is told to


def missing(config: Config) -> list[str]:
    """Returns a line for each thing that isn't here."""
    found = [*missing_data(config), *missing_model(config), *missing_engine(config)]
    most = THREADS_A_CORE * (os.cpu_count() or 1)
    if config.cpu_threads is not None and config.cpu_threads > most:
        found.append(f"cpu_threads={config.cpu_threads}: must be at most {most}, {THREADS_A_CORE} a core here")
    if config.engine.name != "verl":  # which samples by itself
        found += missing_sampler(config.sampler)
    try:
        device = choose_device(config.device)
    except ConfigError as error:
        return [*found, str(error)]
    planned = config.plan == "check" and config.engine.name != "verl"
    if not found and device.type == "cuda" and planned:
        found += refusals(config, this_gpu(device))
    return found


def missing_data(config: Config) -> Iterator[str]:
    """Yields a line for each file of rows that isn't there, and each task that reasoning-gym can't make."""
    source = config.data_source
    try:
        source_fingerprint(source, cache_folder(config))
    except ConfigError as error:
        yield str(error)
    for key, _, rows in row_sets(source):
        if rows.repository is not None and is_path(rows.repository):
            folder = Path(rows.repository).expanduser()
            if not folder.is_dir():
                yield f"data_source.{key}.repository={rows.repository}: no such folder; {nearest(folder)}"
    if isinstance(source, ReasoningGymConfig):
        tasks = {f"tasks.{i}": task for i, task in enumerate(source.tasks)}
        tasks |= {f"benchmarks.{name}": task for name, task in source.benchmarks.items()}
        for key, task in tasks.items():
            try:
                make_task(task.task, {**task.config, "size": 1, "seed": 0})
            except ConfigError as error:
                yield f"data_source.{key}.{error}"


def missing_model(config: Config) -> Iterator[str]:
    """Yields a line where `model.path` is a path and no model is there."""
    if config.model.path is None:
        return
    folder = Path(config.model.path)
    if folder.is_file():
        yield f"model.path={folder}: is a file; must be a folder with config.json, or a hub name"
    elif folder.is_dir() and not (folder / "config.json").is_file():
        inside = [path.parent.name for path in folder.glob("*/config.json")]
        hint = f"; {', '.join(sorted(inside))} in it has" if inside else ""
        yield f"model.path={folder}: is no model, since there is no config.json in it{hint}"
    elif not folder.is_dir() and is_path(config.model.path):
        yield f"model.path={folder}: no such folder, and no name on the hub; {nearest(folder)}"


def is_path(name: str) -> bool:
    """Whether a name can only be a path: names on the hub have one slash at most, and don't begin with a dot."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or name.endswith("/") or " " in name
