"""The data stage: prepared data, made or found in the stage cache."""

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klear_lab.config import Config, ConfigError
from klear_lab.data.look import as_text, steps_table
from klear_lab.data.prepare import SFT_FILE, PreparedData, load_prepared, prepare_data, save_prepared
from klear_lab.data.sources import source_fingerprint
from klear_lab.identity import identity_of
from klear_lab.storage.fingerprints import Fingerprint, difference
from klear_lab.storage.interruption import Stop
from klear_lab.storage.stage_cache import STAGE_VERSIONS, CachedStage, cache_folder, cached, reading

if TYPE_CHECKING:  # looking at data needs no torch
    from klear_lab.storage.run_folder import RunFolder

log = logging.getLogger(__name__)


def prepare_data_stage(config: Config, stop: Stop) -> CachedStage:
    """Prepares the config's data or finds it in the stage cache; serves runs and `python -m klear_lab.data`."""
    cache_dir, content = cache_folder(config), data_content(config)
    files = content["files"]

    def make(partial: Path) -> None:
        read = partial / "read"
        read.mkdir(exist_ok=True)
        save_prepared(prepare_data(config, read), partial)
        shutil.rmtree(read)
        check_unchanged(files, source_fingerprint(config.data_source, cache_dir))

    return cached("data", content, cache_dir, make, stop, holds=SFT_FILE)


def data_content(config: Config) -> dict[str, Any]:
    """Returns all that the prepared data depend on, by which the stage cache knows them."""
    parts = ("data_source", "data", "teacher", "difficulty_filter", "correctness")
    content = {part: identity_of(getattr(config, part)) for part in parts}
    content["data"].pop("max_prompt_tokens", None)  # it acts on prepared rows, see lengths.py
    files = source_fingerprint(config.data_source, cache_folder(config))
    return {"version": STAGE_VERSIONS["data"], "files": files, **content}


def check_unchanged(before: Fingerprint | None, after: Fingerprint | None) -> None:
    """Raises `ConfigError` where a file has changed meanwhile: rows are never kept under another's hash."""
    if changed := difference(before or [], after or []):
        raise ConfigError(f"{changed} while it was read; start again once nothing writes to it")


def run_data_stage(config: Config, folder: "RunFolder", stop: Stop) -> tuple[CachedStage, PreparedData]:
    """Returns prepared data; writes its steps to the run's record and, if newly prepared, to the log."""
    stage = prepare_data_stage(config, stop)
    if "inputs" in folder.record:  # what the run's results will be known by is what was just read
        recorded = folder.record["inputs"]["data_files"]
        check_unchanged(recorded, source_fingerprint(config.data_source, cache_folder(config)))
    with reading(stage.folder):
        data = load_prepared(stage.folder)
    if not stage.from_cache:
        log.info("prepared data\n%s", as_text(steps_table(data.steps)))
    if not data.benchmarks:
        log.warning("data_source.benchmarks names none: nothing is evaluated, and no prompt decontaminated")
    folder.finish_stage("data", stage.seconds, stage.key, stage.from_cache)
    folder.update_record(data=data.steps)
    return stage, data
