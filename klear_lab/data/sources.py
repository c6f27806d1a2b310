"""Where rows come from: `data_source.name` chooses the function that makes or reads them.

It reads all rows, and checks each, before any training.
"""

import hashlib
import logging
from pathlib import Path
from typing import Any

from klear_lab.config import Config, ConfigError, DataConfig
from klear_lab.data.embedded import load_embedded, load_two_worlds
from klear_lab.data.hub import read_hub_rows
from klear_lab.data.read_rows import IN_PACKAGE, RowsRead, find_files, nearest, read_rows
from klear_lab.data.reasoning_gym_source import load_reasoning_gym
from klear_lab.data_source_config import (
    DatasetSourceConfig,
    ReasoningGymConfig,
    RowSetConfig,
    TwoWorldsConfig,
    row_sets,
)
from klear_lab.rows import Row, Source

log = logging.getLogger(__name__)


def load_source(config: Config) -> Source:
    """Returns all rows of the config's source. Raises `ConfigError` for unreadable rows, naming their place."""
    source = config.data_source
    if isinstance(source, DatasetSourceConfig):
        return load_datasets(source, config.data)
    if isinstance(source, ReasoningGymConfig):
        return load_reasoning_gym(source, config.data)
    if isinstance(source, TwoWorldsConfig):
        return load_two_worlds(source, config.data, config.teacher)
    return load_embedded(source, config.data, config.teacher)


def load_datasets(source: DatasetSourceConfig, data: DataConfig) -> Source:
    """Reads rows of files and of the hub. Raises `ConfigError` for a set of which no row is left."""
    limits = {"sft": data.sft_rows, "rl": data.rl_rows}
    rows: dict[str, list[Row]] = {"sft": [], "rl": []}
    left_out = {}
    for key, kind, row_set in row_sets(source):
        name = key.removeprefix("benchmarks.")
        read = read_set(key, row_set, kind, data.on_bad_row, limits.get(key, data.benchmark_rows))
        for reason, example in read.examples.items():
            log.warning("data_source.%s: skipped %d (%s), first %s", key, read.bad_rows[reason], reason, example)
        left_out[name] = read.bad_rows | ({"not kept by columns": read.not_kept} if read.not_kept else {})
        if not read.rows:
            why = ", ".join(f"{count} {reason}" for reason, count in left_out[name].items())
            raise ConfigError(f"data_source.{key}: has no row that can be used ({why or 'it is empty'})")
        rows[name] = read.rows
    benchmarks = {name: rows[name] for name in source.benchmarks}
    return Source(rows["sft"], rows["rl"], benchmarks, source.quality_order, left_out)


def read_set(key: str, rows: RowSetConfig, kind: str, on_bad_row: str, limit: int | None) -> RowsRead:
    """Reads the rows of one set. Raises `ConfigError` that begins with its key."""
    try:
        if rows.repository is None:
            return read_rows(rows.files or [], rows.columns, kind, on_bad_row, limit)
        repository = Path(rows.repository).expanduser()
        # A name that can only be a folder's must not be looked for on the hub.
        if rows.repository.startswith((".", "/", "~")) and not repository.is_dir():
            raise ConfigError(f"{rows.repository}: no such folder; {nearest(repository)}")
        return read_hub_rows(
            str(repository),
            rows.columns,
            kind,
            on_bad_row,
            limit,
            config=rows.config,
            split=rows.split or "train",
            revision=rows.revision,
            files=rows.files,
        )
    except ConfigError as error:
        raise ConfigError(f"data_source.{key}: {error}") from error


def source_fingerprint(source: Any) -> str | None:
    """Returns a hash that changes with the content of a source's files.

    Returns None for rows that we make or that come from the hub. Raises `ConfigError` for a missing file.
    """
    described: list[tuple[Any, ...]] = []
    for key, _, rows in row_sets(source) if isinstance(source, DatasetSourceConfig) else ():
        if rows.repository is None:
            for name in rows.files or []:
                described += [describe(key, path, name.startswith(IN_PACKAGE)) for path in found_files(key, name)]
        elif (folder := Path(rows.repository).expanduser()).is_dir():
            paths = sorted(path for path in folder.rglob("*") if path.is_file())
            visible = [p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
            described += [describe(key, path, False) for path in visible]
    return hashlib.sha256(repr(described).encode()).hexdigest()[:12] if described else None


def found_files(key: str, name: str) -> list[Path]:
    """Finds the files of one name or glob. Raises `ConfigError` that begins with the key."""
    try:
        return find_files([name])
    except ConfigError as error:
        raise ConfigError(f"data_source.{key}.files: {error}") from error


def describe(key: str, path: Path, by_content: bool) -> tuple[Any, ...]:
    """Returns values that change with a file's content: its size and date or, `by_content`, its hash.

    A package's files go by content, since they are small and their dates are when it was installed.
    """
    if by_content:
        return key, path.name, hashlib.sha256(path.read_bytes()).hexdigest()
    return key, str(path), path.stat().st_size, path.stat().st_mtime_ns
