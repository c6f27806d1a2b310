"""Looks, before anything starts, for what a run needs and this machine lacks; finished runs need a place alone."""

import tempfile
from pathlib import Path

from klear_lab.config import Config, ConfigError
from klear_lab.storage.run_folder import RunFolder
from klear_lab.storage.stage_cache import cache_folder


def check_machine(config: Config, run_id: str) -> None:
    """Raises `ConfigError` for all that a run would miss here. A finished run reads nothing any more."""
    folder = RunFolder.of(config, run_id)
    found = unwritable("runs_dir", config.runs_dir, folder.path.parent)
    if not found and not folder.is_finished():
        from klear_lab.needs import missing  # not above: finished runs needn't wait for torch

        found = [*unwritable("cache_dir", config.cache_dir, cache_folder(config)), *missing(config)]
    if found:
        raise ConfigError("\n".join(found))


def unwritable(key: str, typed: str, folder: Path) -> list[str]:
    """Returns a line where a folder can't be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        return [f"{key}={typed}: {folder} can't be written to ({why}); name a folder that can"]
    return []
