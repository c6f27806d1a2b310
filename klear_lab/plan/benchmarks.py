"""How many problems a config's benchmarks have, as far as it says, without reading any."""

from typing import Any

from klear_lab.config import Config, EmbeddedSourceConfig
from klear_lab.data_source_config import parts_of

PROBLEMS = {
    "aime24": 30,
    "aime25": 30,
    "hmmt25": 30,
    "lcb_v5": 167,
    "lcb_v6": 175,
}  # of LiveCodeBench the new ones


def problems_by_benchmark(config: Config) -> list[int | None]:
    """Returns the most problems that each benchmark may have, None where neither the config nor its name says."""
    limit = config.data.benchmark_rows
    return [count for part in parts_of(config.data_source) for count in problems_of(part, limit)]


def problems_of(part: Any, limit: int | None) -> list[int | None]:
    """Returns the problems of each benchmark of a source that isn't made of others."""
    if isinstance(part, EmbeddedSourceConfig):
        return [limit for _ in part.benchmark_steps]
    known = [[n for n in (limit, PROBLEMS.get(name)) if n is not None] for name in part.benchmarks]
    return [min(bounds, default=None) for bounds in known]
