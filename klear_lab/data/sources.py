"""Where rows come from: `data_source.name` chooses the function that makes or reads them.

It reads all rows, and checks each, before any training.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from klear_lab.config import Config, ConfigError, DataConfig
from klear_lab.data.embedded import load_embedded, load_two_worlds
from klear_lab.data.hub import read_hub_rows
from klear_lab.data.read_rows import RowsRead, find_files, nearest, read_rows, row_names
from klear_lab.data.reasoning_gym_source import load_reasoning_gym
from klear_lab.data.table import write_rows
from klear_lab.data_source_config import (
    DatasetSourceConfig,
    JoinedSourceConfig,
    ReasoningGymConfig,
    RowSetConfig,
    TwoWorldsConfig,
    row_sets,
)
from klear_lab.rows import Row, Source
from klear_lab.storage.fingerprints import Fingerprint, fingerprint, is_hidden

log = logging.getLogger(__name__)


def load_source(config: Config, folder: Path | None = None) -> Source:
    """Returns all rows of the config's source. Raises `ConfigError` for unreadable rows, naming their place.

    SFT rows of files and of the hub are kept in `folder`, without one in memory.
    """
    source = config.data_source
    if isinstance(source, DatasetSourceConfig):
        return load_datasets(source, config.data, folder)
    if isinstance(source, JoinedSourceConfig):
        return load_joined(source, config.data, folder)
    if isinstance(source, ReasoningGymConfig):
        return load_reasoning_gym(source, config.data)
    if isinstance(source, TwoWorldsConfig):
        return load_two_worlds(source, config.data, config.teacher)
    return load_embedded(source, config.data, config.teacher)


def load_joined(source: JoinedSourceConfig, data: DataConfig, folder: Path | None) -> Source:
    """Reads the rows of several sources, one after the other; of SFT rows in files none is held in memory.

    Raises `ConfigError` for a set of which no row is left, and for two benchmarks of the same name.
    """
    found = {}
    for name, part in source.sources.items():
        own = None if folder is None else folder / name
        if own is not None:
            own.mkdir(exist_ok=True)
        found[name] = load_datasets(part, data, own, f"sources.{name}.")
    sft = chain.from_iterable(part.sft_rows for part in found.values())
    benchmarks: dict[str, list[Row]] = {}
    left_out: dict[str, Counter[str]] = {}
    for name, rows_of in found.items():
        for benchmark, rows in rows_of.benchmarks.items():
            if benchmark in benchmarks:
                key = f"data_source.sources.{name}.benchmarks.{benchmark}"
                raise ConfigError(f"{key}: another source has a benchmark of that name; rename or drop one")
            benchmarks[benchmark] = rows
        for kind, counts in rows_of.bad_rows.items():
            left_out.setdefault(kind, Counter()).update(counts)
    return Source(
        [*sft] if folder is None else write_rows(sft, folder / "read.arrow"),
        with_own_ids({name: part.rl_rows for name, part in found.items()}),
        benchmarks,
        source.quality_order,
        {kind: dict(counts) for kind, counts in left_out.items()},
    )


def with_own_ids(parts: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Returns the RL rows of all sources; an id that several have gets its source's name before it.

    Pass counts and the draw of test cases go by id. An id that one row alone has stays, as prepared data have it.
    """
    counts = Counter(row["id"] for rows in parts.values() for row in rows)
    taken, found = set(counts), []
    for source, rows in parts.items():
        for row in rows:
            own = row["id"]
            while counts[row["id"]] > 1 and own in taken:
                own = f"{source}-{own}"
            taken.add(own)
            found.append(row if own == row["id"] else {**row, "id": own})
    return found


def load_datasets(source: DatasetSourceConfig, data: DataConfig, folder: Path | None, prefix: str = "") -> Source:
    """Reads rows of files and of the hub; `prefix` is what stands before the sets' keys in messages.

    Raises `ConfigError` for a set of which no row is left.
    """
    limits = {"sft": data.sft_rows, "rl": data.rl_rows}
    rows: dict[str, Sequence[Row]] = {"sft": [], "rl": []}
    left_out = {}
    for key, kind, row_set in row_sets(source):
        name = key.removeprefix("benchmarks.")
        into = folder / "read.arrow" if folder is not None and key == "sft" else None
        read = read_set(prefix + key, row_set, kind, data.on_bad_row, limits.get(key, data.benchmark_rows), into)
        for reason, example in read.examples.items():
            log.warning(
                "data_source.%s: skipped %d (%s), first %s", prefix + key, read.bad_rows[reason], reason, example
            )
        if read.unread:
            limit = f"data.{key if key in limits else 'benchmark'}_rows"
            log.warning(
                "data_source.%s: the first %d rows are read and further ones aren't; %s=null reads all",
                prefix + key,
                len(read.rows),
                limit,
            )
        left_out[name] = read.bad_rows | ({"not kept by columns": read.not_kept} if read.not_kept else {})
        if not read.rows:
            why = ", ".join(f"{count} {reason}" for reason, count in left_out[name].items())
            raise ConfigError(f"data_source.{prefix}{key}: has no row that can be used ({why or 'it is empty'})")
        rows[name] = read.rows
    benchmarks = {name: [*rows[name]] for name in source.benchmarks}
    return Source(rows["sft"], [*rows["rl"]], benchmarks, source.quality_order, left_out)


def read_set(
    key: str, rows: RowSetConfig, kind: str, on_bad_row: str, limit: int | None, into: Path | None
) -> RowsRead:
    """Reads the rows of one set. Raises `ConfigError` that begins with its key."""
    where = f"data_source.{key}.columns"
    try:
        if rows.repository is None:
            return read_rows(rows.files or [], rows.columns, kind, on_bad_row, limit, where=where, into=into)
        repository = Path(rows.repository).expanduser()
        if repository.is_file():
            raise ConfigError(
                f"{rows.repository}: is a file and no repository; type 'data_source.{key}.files=[{repository}]' "
                f"data_source.{key}.repository=null data_source.{key}.split=null"
            )
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
            where=where,
            into=into,
        )
    except ConfigError as error:
        raise ConfigError(f"data_source.{key}: {error}") from error


def source_fingerprint(source: Any, cache_dir: Path) -> Fingerprint | None:
    """Hashes the files of a source; None for rows that are made here or come from the hub.

    `cache_dir` remembers hashes. Raises `ConfigError` for a file that is missing or can't be read.
    """
    files: list[tuple[str, Path]] = []
    for key, _, rows in row_sets(source):
        if rows.repository is None:
            files += [(f"data_source.{key}: {name}", path) for name, path in named_files(key, rows.files or [])]
        elif (folder := Path(rows.repository).expanduser()).is_dir():
            paths = sorted(path for path in folder.rglob("*") if not is_hidden(path, folder) and path.is_file())
            files += [(f"data_source.{key}: {path.relative_to(folder).as_posix()}", path) for path in paths]
    return fingerprint(files, cache_dir) if files else None


def named_files(key: str, files: Sequence[str]) -> list[tuple[str, Path]]:
    """Names the files of a set as the ids of their rows do. Raises `ConfigError` that begins with the key."""
    try:
        paths = find_files(files)
    except ConfigError as error:
        raise ConfigError(f"data_source.{key}.files: {error}") from error
    # A row without an id is called after its file, so a file that is renamed gives other rows.
    names = zip(row_names(paths), paths, strict=True)
    return [(name if name.endswith(path.name) else path.name, path) for name, path in names]
