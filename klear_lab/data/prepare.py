"""Data preparation: reads a source, applies the paper's steps in order, and records what each dropped, and why.

SFT rows: exact deduplication and 9-gram decontamination (paper, section 3.1), best sources (5.1.3), difficulty and
correctness (5.1.1), subset. RL rows: the same two, and a filter by a strong model's completions (3.2.1).
A prepared set is a folder: SFT rows in `sft.arrow` (table.py), from where they are read when needed; `rl.jsonl`,
`benchmarks/<name>.jsonl`; and `steps.json`, which counts the rows of the files of lines. The same config gives the
same bytes.
"""

import json
import random
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from klear_lab.config import Config, ConfigError, DataConfig
from klear_lab.data.decontaminate import shares_ngram
from klear_lab.data.deduplicate import first_answers, first_occurrences
from klear_lab.data.difficulty import why_not_in_range
from klear_lab.data.k_center import embed, k_center_greedy
from klear_lab.data.rl_filters import why_not
from klear_lab.data.sources import load_source
from klear_lab.data.table import MappedRows, StoredRows, write_rows
from klear_lab.rows import Row, Source, prompt_text

SFT_FILE = "sft.arrow"


@dataclass(frozen=True)
class PreparedData:
    """Holds prepared training and benchmark rows, and what each preparation step took, kept and dropped."""

    sft_rows: Sequence[Row]
    rl_rows: list[Row]
    benchmarks: dict[str, list[Row]]
    steps: list[dict[str, Any]]


@dataclass
class Pipeline:
    """Carries the rows of one set through the steps, and keeps a record of the steps."""

    name: str
    rows: Sequence[Row]
    steps: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, step: str, why_dropped: Iterable[str | None]) -> None:
        """Applies and records one step; `why_dropped` has a reason for each row that leaves, None if it stays.

        Raises `ConfigError` where no row stays.
        """
        taken, kept, dropped = len(self.rows), array("q"), Counter[str]()
        for place, reason in zip(range(taken), why_dropped, strict=True):
            if reason is None:
                kept.append(place)
            else:
                dropped[reason] += 1
        self.steps.append(
            {"step": step, "set": self.name, "taken": taken, "kept": len(kept), "dropped": dict(dropped)}
        )
        if taken and not kept:
            raise ConfigError(
                f"{step}: left none of {taken} {self.name} rows "
                f"({', '.join(f'{count} {reason}' for reason, count in dropped.items())}); widen or drop it"
            )
        if isinstance(self.rows, StoredRows):
            self.rows = self.rows.select(np.frombuffer(kept, dtype=np.int64))
        else:
            self.rows = [self.rows[place] for place in kept]


def prepare_data(config: Config, folder: Path | None = None) -> PreparedData:
    """Reads the config's source and takes its rows through the steps.

    SFT rows of files and of the hub are kept in an existing `folder`, without one in memory.
    Raises `ConfigError` for rows that can't be read, and for a step that leaves none, which it names.
    """
    loaded = load_source(config, folder)
    sft, rl = prepare_sft(loaded, config), prepare_rl(loaded, config)
    steps = [*sft.steps, *rl.steps]
    for name, rows in loaded.benchmarks.items():
        if bad := loaded.bad_rows.get(name):
            steps += start(name, rows, config.data_source, bad).steps
    return PreparedData(sft.rows, [*rl.rows], loaded.benchmarks, steps)


def start(name: str, rows: Sequence[Row], source: Any, bad: dict[str, int]) -> Pipeline:
    """Starts a set as its source has it; `bad` counts the rows that reading left out, by reason."""
    step = {"step": f"data_source={source.name}", "set": name, "taken": len(rows) + sum(bad.values())}
    return Pipeline(name, rows, [{**step, "kept": len(rows), "dropped": bad}])


def prepare_sft(loaded: Source, config: Config) -> Pipeline:
    """Takes the SFT rows through their steps. Raises `ConfigError` for a step that leaves none."""
    data, difficulty, correctness = config.data, config.difficulty_filter, config.correctness
    sft = start("sft", loaded.sft_rows, config.data_source, loaded.bad_rows.get("sft", {}))
    if not sft.rows:  # a source without this set
        return sft
    if data.deduplicate:
        drop_repeated(sft)
    if data.decontaminate_ngram is not None:
        drop_contaminated(sft, loaded.benchmarks, data.decontaminate_ngram)
    if data.top_sources is not None:
        best = set(loaded.quality_order[: data.top_sources])
        reasons = (None if row["source"] in best else f"source {row['source']}" for row in sft.rows)
        sft.drop(f"data.top_sources={data.top_sources}", reasons)
    if (difficulty.minimum, difficulty.maximum) != (0, 1):
        sft.drop(f"difficulty_filter={difficulty.name}", (why_not_in_range(row, difficulty) for row in sft.rows))
    if correctness.only_true:
        reasons = (None if row["correct"] else "not known to be right" for row in sft.rows)
        sft.drop(f"correctness={correctness.name}", reasons)
    if data.sft_budget is not None:
        choose_subset(sft, data, data.sft_budget)
    return sft


def prepare_rl(loaded: Source, config: Config) -> Pipeline:
    """Takes the RL rows through their steps. Raises `ConfigError` for a step that leaves none."""
    data = config.data
    rl = start("rl", loaded.rl_rows, config.data_source, loaded.bad_rows.get("rl", {}))
    if not rl.rows:
        return rl
    if data.deduplicate:
        drop_repeated(rl)
    if data.decontaminate_ngram is not None:
        drop_contaminated(rl, loaded.benchmarks, data.decontaminate_ngram)
    if data.filter_rl:
        rl.drop("data.filter_rl=true", (why_not(row, data.minimum_tests) for row in rl.rows))
    return rl


def drop_repeated(pipeline: Pipeline) -> None:
    """Drops repeated queries (deduplicate.py); a source's several answers to one of them stay."""
    if pipeline.name == "sft":
        keep = first_answers((prompt_text(row), row["source"], row["response"]) for row in pipeline.rows)
    else:
        keep = first_occurrences(prompt_text(row) for row in pipeline.rows)
    pipeline.drop("data.deduplicate=true", (None if kept else "repeated query" for kept in keep))


def drop_contaminated(pipeline: Pipeline, benchmarks: dict[str, list[Row]], n: int) -> None:
    """Drops rows whose prompt shares a word n-gram with a benchmark."""
    known = [prompt_text(row) for rows in benchmarks.values() for row in rows]
    shared = shares_ngram((prompt_text(row) for row in pipeline.rows), known, n)
    reasons = (f"shares {n} words with a benchmark" if found else None for found in shared)
    pipeline.drop(f"data.decontaminate_ngram={n}", reasons)


def choose_subset(sft: Pipeline, data: DataConfig, budget: int) -> None:
    """Keeps a subset of `budget` rows, so that every arm trains on equally many.

    Raises `ConfigError` where there are fewer.
    """
    if budget > len(sft.rows):
        raise ConfigError(
            f"data.sft_budget={budget}: only {len(sft.rows)} SFT rows are left by then; ask for fewer, or for a "
            "larger data.sft_rows"
        )
    if data.subset == "k_center":
        embeddings = embed(MappedRows(sft.rows, prompt_text), data.embedding, data.seed)
        chosen = {int(i) for i in k_center_greedy(embeddings, budget, data.seed)}
    else:
        chosen = set(random.Random(f"{data.seed}-subset").sample(range(len(sft.rows)), budget))
    reasons = (None if i in chosen else "not chosen" for i in range(len(sft.rows)))
    sft.drop(f"data.sft_budget={budget} ({data.subset})", reasons)


def save_prepared(data: PreparedData, folder: Path) -> None:
    """Writes prepared data into an existing folder."""
    (folder / "benchmarks").mkdir(exist_ok=True)
    write_rows(data.sft_rows, folder / SFT_FILE)
    write_json_lines(data.rl_rows, folder / "rl.jsonl")
    for name, rows in data.benchmarks.items():
        write_json_lines(rows, folder / "benchmarks" / f"{name}.jsonl")
    # In the order of the config, which a directory listing would lose.
    about = {"steps": data.steps, "benchmarks": [*data.benchmarks], "rows": row_counts(data)}
    (folder / "steps.json").write_text(json.dumps(about))


def load_prepared(folder: Path) -> PreparedData:
    """Reads what `save_prepared` wrote; of the SFT rows none before it is asked for.

    Raises `ValueError` for a file without all of its rows. Sets that were prepared before these were counted pass.
    """
    about = json.loads((folder / "steps.json").read_text())
    data = PreparedData(
        StoredRows(folder / SFT_FILE),
        read_json_lines(folder / "rl.jsonl"),
        {name: read_json_lines(folder / "benchmarks" / f"{name}.jsonl") for name in about["benchmarks"]},
        about["steps"],
    )
    found = row_counts(data)
    for file, rows in about.get("rows", {}).items():
        if found[file] != rows:
            raise ValueError(f"{file} has {found[file]} rows, where {rows} were written")
    return data


def row_counts(data: PreparedData) -> dict[str, int]:
    """Returns the number of rows of each file of lines; the SFT file, of another format, shows when it is cut."""
    benchmarks = {f"benchmarks/{name}.jsonl": len(rows) for name, rows in data.benchmarks.items()}
    return {"rl.jsonl": len(data.rl_rows), **benchmarks}


def write_json_lines(rows: Iterable[Row], path: Path) -> None:
    """Writes rows as JSON lines, one object a line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json_lines(path: Path) -> list[Row]:
    """Reads all rows of a file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
