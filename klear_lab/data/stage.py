"""The data stage: prepared data, made or found in the stage cache."""

import dataclasses
from pathlib import Path

from klear_lab.config import Config
from klear_lab.data.prepare import prepare_data, save_prepared
from klear_lab.data.sources import source_fingerprint
from klear_lab.storage.interruption import Stop
from klear_lab.storage.stage_cache import STAGE_VERSIONS, CachedStage, cached


def prepare_data_stage(config: Config, cache_dir: Path, stop: Stop) -> CachedStage:
    """Prepared data, made or found, by a run or by `python -m klear_lab.data`."""
    parts = ("data_source", "data", "teacher", "difficulty_filter", "correctness")
    content = {part: dataclasses.asdict(getattr(config, part)) for part in parts}
    files = source_fingerprint(config.data_source)

    def make(partial: Path) -> None:
        save_prepared(prepare_data(config), partial)

    return cached("data", {"version": STAGE_VERSIONS["data"], "files": files, **content}, cache_dir, make, stop)
