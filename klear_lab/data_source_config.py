"""The schema of the data sources: what `data_source` may hold, chosen by its `name`.

The schema of the embedded worlds is in config.py. A set that is null, or names neither files nor a repository,
gives no rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from klear_lab.config import EmbeddedSourceConfig, at_least


@dataclass
class RowSetConfig:
    """Says where the rows of one set are, and how to read them."""

    # JSON lines or Parquet: names, globs, pkg://package/path. With a repository: names or globs inside of it.
    files: list[str] | None = None
    repository: str | None = None  # on the Hugging Face hub, or a folder with the same content
    config: str | None = None  # which configuration of a repository that has several
    split: str | None = None  # which split of a repository; null: train
    revision: str | None = None  # branch, tag or commit of a repository; null: the newest when first read
    columns: dict[str, Any] = field(default_factory=dict)  # klear_lab/data/columns.py; empty: rows in our formats


@dataclass
class DatasetSourceConfig:
    """Takes rows from files or the hub in their order; data.*_rows says how many of the first."""

    name: str = "file"
    sft: RowSetConfig | None = None
    rl: RowSetConfig | None = None
    benchmarks: dict[str, RowSetConfig] = field(default_factory=dict)  # name -> set of RL rows
    quality_order: list[str] = field(default_factory=list)  # of SFT rows' `source`, best first: data.top_sources


@dataclass
class JoinedSourceConfig:
    """Joins sources of files and of the hub: their rows one source after the other, and the benchmarks of all."""

    name: str = "joined"
    sources: dict[str, DatasetSourceConfig] = field(default_factory=dict)  # data.*_rows rows of each
    quality_order: list[str] = field(default_factory=list)  # of SFT rows' `source`, best first: data.top_sources


@dataclass
class TaskConfig:
    """Names one of reasoning-gym's tasks, with settings of its own."""

    task: str = ""
    config: dict[str, Any] = field(default_factory=dict)  # e.g. {max_terms: 4}; empty: the task's defaults


@dataclass
class ReasoningGymConfig:
    """Lets reasoning-gym make problems to order: RL rows and benchmarks, no SFT rows."""

    name: str = "reasoning_gym"
    tasks: list[TaskConfig] = field(
        default_factory=list, metadata={"must be": "a list of at least one {task, config}", "test": bool}
    )  # RL rows take them in turn
    benchmarks: dict[str, TaskConfig] = field(default_factory=dict)  # name -> its task
    benchmark_seed: int = at_least(0, 0)  # draws the benchmarks; data.seed doesn't change them


@dataclass
class TwoWorldsConfig:
    """Joins both embedded worlds: data.*_rows rows of each, and the benchmarks of both."""

    name: str = "chain_and_functions"
    chain: EmbeddedSourceConfig = field(default_factory=EmbeddedSourceConfig)
    functions: EmbeddedSourceConfig = field(default_factory=EmbeddedSourceConfig)


DATA_SOURCES = {
    "chain": EmbeddedSourceConfig,
    "functions": EmbeddedSourceConfig,
    "chain_and_functions": TwoWorldsConfig,
    "file": DatasetSourceConfig,
    "hub": DatasetSourceConfig,
    "joined": JoinedSourceConfig,
    "reasoning_gym": ReasoningGymConfig,
}


def is_absent(rows: RowSetConfig | None) -> bool:
    """Tells whether a set gives no rows."""
    return rows is None or (not rows.files and rows.repository is None)


def parts_of(source: Any) -> list[Any]:
    """Returns the sources that a source is made of; itself where it is made of no others."""
    if isinstance(source, TwoWorldsConfig):
        return [source.chain, source.functions]
    return [*source.sources.values()] if isinstance(source, JoinedSourceConfig) else [source]


def row_sets(source: Any) -> Iterator[tuple[str, str, RowSetConfig]]:
    """Yields the sets that give rows, benchmarks first: the key below data_source, "rl" or "sft", and the set.

    Sources that aren't made of sets have none.
    """
    for name, part in source.sources.items() if isinstance(source, JoinedSourceConfig) else ():
        yield from ((f"sources.{name}.{key}", kind, rows) for key, kind, rows in row_sets(part))
    if not isinstance(source, DatasetSourceConfig):
        return
    named = [(f"benchmarks.{name}", "rl", rows) for name, rows in source.benchmarks.items()]
    for key, kind, rows in [*named, ("rl", "rl", source.rl), ("sft", "sft", source.sft)]:
        if rows is not None and not is_absent(rows):
            yield key, kind, rows
