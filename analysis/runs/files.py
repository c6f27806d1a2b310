"""Reads and checks one run folder's files; token records are read in analysis/report/explorer.py.

What an unfinished run may lack is tolerated here and nowhere else: its last metrics line may be cut in half, and
files it had not yet written may be missing. Anything else that is broken is an error that names the file and what
to do; analysis/runs/damage.py leaves such a run out and goes on with the others.

Axes: L lines of metrics.jsonl, M metrics.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet
import yaml

from analysis.errors import RunFolderError

LARGEST = 10**308  # beyond it a whole number is no float
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 1_000_000  # of a stage; curves have a place for each step
NUMBERS = {int, float, bool, type(None)}
EVALUATION_KEYS = ["benchmark", "step", "prompt_id", "sample"]
EVALUATION_COLUMNS = [*EVALUATION_KEYS, "correct", "score", "length", "truncated"]
STATUSES = ("running", "finished", "failed")
NEEDED = ("run_id", "status", "seed")
COLUMN_TYPES = {
    "benchmark": ("text", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    "prompt_id": ("text", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    "step": ("whole numbers", pa.types.is_integer),
    "sample": ("whole numbers", pa.types.is_integer),
    "correct": ("true or false", pa.types.is_boolean),
}
SCORE = re.compile(r"eval/(?P<benchmark>.+)/avg@(?P<samples>\d+)")  # the name of a score in metrics.jsonl
# Of run.json; what isn't needed may be missing or null.
RECORD_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(("run_id", "status", "sweep", "git_commit", "error", "started", "finished"), (str, "text")),
    "seed": (int, "a whole number"),
    **dict.fromkeys(("arm", "sweeps", "stages", "versions", "hardware"), (dict, "an object")),
    **dict.fromkeys(("command", "data"), (list, "a list")),
}
# Parts of config.yaml that are read by their keys; any may be missing.
SEEDED = ("sft", "data")
CONFIG_PARTS = ("data_source", "model", "sft", "data", "rl", "eval")
KINDS: tuple[tuple[Any, str], ...] = (
    (str, "text"),
    (bool, "a switch"),
    (int | float, "a number"),
    (list, "a list"),
    (dict, "an object"),
)
REPAIR = "Delete the run folder and run the same command again: finished runs are skipped, this one is made anew."


@dataclass(frozen=True)
class MetricLines:
    """Holds the lines of one metrics.jsonl: stage and step of each, the metrics' names, and the values."""

    stages: list[str]
    steps: list[int]
    names: list[str]
    values_LM: npt.NDArray[np.float64]


@dataclass(frozen=True)
class OneRun:
    """Holds what one run wrote, its scores aside; `where` is its folder, or its address in wandb."""

    where: Path | str
    record: dict[str, Any]
    config: dict[str, Any]
    metrics: MetricLines


def read_run(folder: Path) -> OneRun:
    """Reads one run folder. Raises RunFolderError."""
    record = read_record(folder / "run.json")
    finished = record["status"] == "finished"
    config = read_config(folder / "config.yaml", finished)
    if trouble := seeds_trouble(record, config):
        raise RunFolderError(f"{folder / 'run.json'}: {trouble}. {REPAIR}")
    return OneRun(folder, record, config, read_metrics(folder / "metrics.jsonl", finished))


def read_record(path: Path) -> dict[str, Any]:
    """Reads `run.json`. Raises RunFolderError for what isn't JSON, or isn't what `record_trouble` asks for."""
    try:
        record = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}, line {error.lineno}: not JSON ({error.msg}). {REPAIR}") from error
    except RecursionError as error:
        raise RunFolderError(f"{path}: not a run's record (nested too deeply). {REPAIR}") from error
    if trouble := record_trouble(record):
        raise RunFolderError(f"{path}: {trouble}. {REPAIR}")
    return dict(record)


def record_trouble(record: Any) -> str | None:
    """Says what is wrong with the content of a run.json, None where nothing is: missing keys, and wrong types."""
    if not isinstance(record, dict):
        return f"not an object but {kind_of(record)}"
    if missing := [key for key in NEEDED if key not in record]:
        return f"lacks {missing}"
    for key, (kinds, words) in RECORD_TYPES.items():
        value = record.get(key)
        if not (value is None and key not in NEEDED) and (not isinstance(value, kinds) or isinstance(value, bool)):
            return f"{key} must be {words}, not {kind_of(value)}"
    if abs(record["seed"]) > LARGEST_SEED:
        return f"seed {record['seed']} has more than 64 bits"
    for key in ("sweeps", "stages"):
        for name, value in (record.get(key) or {}).items():
            if not isinstance(value, dict):
                return f"{key}.{name} must be an object, not {kind_of(value)}"
    for name, stage in (record.get("stages") or {}).items():
        seconds = stage.get("seconds")
        if seconds is not None and (type(seconds) not in (int, float) or not abs(seconds) <= LARGEST):
            return f"stages.{name}.seconds must be a finite number, not {kind_of(seconds)}"
        if not isinstance(stage.get("from_cache"), bool | None):
            return f"stages.{name}.from_cache must be true or false, not {kind_of(stage['from_cache'])}"
    for arm in (record.get("arm") or {}, *(record.get("sweeps") or {}).values()):
        for key, value in arm.items():
            if isinstance(value, dict):
                return f"the arm's {key} must be one value, not {kind_of(value)}"
    if not all(isinstance(word, str) for word in record.get("command") or ()):
        return "command must be a list of words"
    if record["status"] not in STATUSES:
        return f"status {record['status']!r} is none of {STATUSES}"
    return None if record["run_id"].strip() else "run_id is empty"


def seeds_trouble(record: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """Says that a run's record and its config have different seeds, None where they don't."""
    own = config.get("seed")
    return None if own in (None, record["seed"]) else f"seed is {record['seed']}, though config.yaml has {own}"


def kind_of(value: Any) -> str:
    """Names what a JSON value is, with the value where it is short."""
    name = next((words for kinds, words in KINDS if isinstance(value, kinds)), "null")
    text = json.dumps(value)
    return f"{name} {text}" if name != "null" and len(text) <= 30 else name


class ConfigLoader(yaml.CSafeLoader):
    """Loads YAML safely, ten times as fast: libyaml parses, and a sweep's configs share nearly all their words."""

    def resolve(self, kind: type, value: str, implicit: tuple[bool, bool]) -> str:
        """Returns the tag of a word."""
        return resolved(kind, value, implicit)


@lru_cache(maxsize=10_000)
def resolved(kind: type, value: str, implicit: tuple[bool, bool]) -> str:
    """Resolves a word by PyYAML's own regular expressions, once for each word."""
    return str(yaml.resolver.Resolver().resolve(kind, value, implicit))


def read_config(path: Path, finished: bool) -> dict[str, Any]:
    """Reads `config.yaml`; {} where an unfinished run has none. Raises RunFolderError where it is broken."""
    if not path.exists() and not finished:
        return {}
    text = _read_text(path)
    try:
        config = yaml.load(text, Loader=ConfigLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RunFolderError(f"{path}: not YAML ({one_line(error)}). {REPAIR}") from error
    if trouble := config_trouble(config):
        raise RunFolderError(f"{path}: {trouble}. {REPAIR}")
    return dict(config)


def config_trouble(config: Any) -> str | None:
    """Says what is wrong with the content of a config.yaml, None where nothing is."""
    method = config.get("clip_method") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(method, dict) or not isinstance(method.get("name"), str):
        return "no clip_method.name in it"
    try:
        json.dumps(config, sort_keys=True)
    except TypeError as error:
        return f"holds more than text, numbers, lists and keys that are words ({error})"
    for key in CONFIG_PARTS:
        if not isinstance(config.get(key), dict | None):
            return f"{key} has no keys of its own but is {config[key]!r}"
    for key, value in (
        ("seed", config.get("seed")),
        *((f"{k}.seed", (config.get(k) or {}).get("seed")) for k in SEEDED),
    ):
        if not isinstance(value, int | None):
            return f"{key} must be a whole number, not {value!r}"
    return None


def read_metrics(path: Path, finished: bool) -> MetricLines:
    """Reads `metrics.jsonl`.

    A resumed run repeats the steps since its checkpoint; the later line is the one its weights came from, so
    it wins. Raises RunFolderError for a line that is not an object with stage and step, except the last line
    of an unfinished run.
    """
    if not path.exists() and not finished:
        return metric_lines({})
    lines = _read_text(path).splitlines()
    rows: dict[tuple[str, int], dict[str, float | None]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            stage, step, values = _metrics_line(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines) and not finished:
                break
            raise RunFolderError(f"{path}, line {number}: not a metrics object ({error}). {REPAIR}") from error
        rows[stage, step] = values
    try:
        return metric_lines(rows)
    except (ValueError, TypeError, OverflowError) as error:
        stage, step, name = _no_number(rows)
        raise RunFolderError(f"{path}: {name} of {stage} step {step} is no number ({error}). {REPAIR}") from error


def metric_lines(rows: Mapping[tuple[str, int], Mapping[str, float | None]]) -> MetricLines:
    """Makes an array of lines by stage and step; None is NaN.

    Raises ValueError or TypeError for what is no number.
    """
    names: dict[str, Any] = {}
    for row in rows.values():
        names |= row
    values = [[*map(row.get, names)] for row in rows.values()]
    # numpy would read the text "0.5" as a number
    if strange := {kind for row in values for kind in map(type, row)} - NUMBERS:
        raise TypeError(f"{strange.pop().__name__} where a number belongs")
    values_LM = np.array(values, dtype=float).reshape(len(rows), len(names))
    return MetricLines([stage for stage, _ in rows], [step for _, step in rows], [*names], values_LM)


def read_evaluations(path: Path) -> pa.Table | None:
    """Reads what scores are made of in `evaluations.parquet`: EVALUATION_KEYS and correct.

    Returns None where there is none: a run without benchmarks never writes it. Raises RunFolderError where it is
    unreadable, or lacks a column, or where a column holds another type, or gaps.
    """
    if not path.exists():
        return None
    try:
        with pyarrow.parquet.ParquetFile(path, read_dictionary=["benchmark", "prompt_id"]) as file:
            missing = [column for column in EVALUATION_COLUMNS if column not in file.schema_arrow.names]
            if missing:
                raise RunFolderError(f"{path}: lacks the columns {missing}. {REPAIR}")
            table = file.read(columns=[*EVALUATION_KEYS, "correct"], use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"{path}: cannot be read ({one_line(error)}). {REPAIR}") from error
    for name, (words, test) in COLUMN_TYPES.items():
        column = table[name]
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if len(column) and not test(kind):
            raise RunFolderError(f"{path}: column {name} must be {words}, not {kind}. {REPAIR}")
        if column.null_count:
            raise RunFolderError(f"{path}: column {name} has {column.null_count} gaps. {REPAIR}")
    return table if len(table) else None


def check_evaluated(path: Path, metrics: MetricLines, scored: Collection[tuple[str, int]]) -> None:
    """Checks that all evaluations of a finished run that metrics.jsonl tells of are there. Raises RunFolderError.

    scored: benchmark and step of those in evaluations.parquet. A run without benchmarks has none, but then
    metrics.jsonl has no scores either.
    """
    for place, name in enumerate(metrics.names):
        if not name.startswith("eval/") or not (score := SCORE.fullmatch(name)):
            continue
        for line in np.flatnonzero(~np.isnan(metrics.values_LM[:, place])).tolist():
            step = metrics.steps[line]
            if (score["benchmark"], step) not in scored:
                lost = f"lacks {score['benchmark']} at step {step}" if scored else "has no rows"
                lost = lost if path.exists() else "missing"
                raise RunFolderError(f"{path}: {lost}, though metrics.jsonl has {name}. {REPAIR}")


def read_probes(folder: Path) -> list[dict[str, Any]]:
    """Reads a run's probes.jsonl (histograms, most clipped tokens of each RL step), [] where there is none.

    It skips a last line cut in half. Raises RunFolderError for any other line that isn't a step's probes.
    """
    path = folder / "probes.jsonl"
    lines = _read_text(path).splitlines(keepends=True) if path.exists() else []
    found = []
    try:
        for line in lines:
            if line.endswith("\n"):
                found.append(json.loads(line))
                for tokens in found[-1]["most_clipped"].values():
                    _ = [token["text"] + "" for token in tokens], sum(token["count"] for token in tokens)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(f"{path}: not JSON lines of probes ({error!r}). {REPAIR}") from error
    return found


def parsed_line(line: str) -> Any:
    """Returns what a line of JSON says. Raises ValueError."""
    try:
        return orjson.loads(line)  # five times as fast as json
    except orjson.JSONDecodeError:
        return json.loads(line)  # reads Infinity too, which an overflow may have left


def one_line(error: BaseException) -> str:
    """Returns an error's words on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read ({error.strerror}). {REPAIR}") from error
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{path}: not UTF-8 (byte {error.start}: {error.reason}). {REPAIR}") from error


def _metrics_line(line: str) -> tuple[str, int, dict[str, float | None]]:
    """Returns stage, step and values of a line. Raises ValueError for what isn't an object with these."""
    row = parsed_line(line)
    if not isinstance(row, dict):
        raise ValueError(f"it is {kind_of(row)}")
    stage, step = row.pop("stage", None), row.pop("step", None)
    if not isinstance(stage, str) or type(step) is not int:
        raise ValueError(f"stage is {kind_of(stage)}, step is {kind_of(step)}")
    if not 0 <= step <= MOST_STEPS:
        raise ValueError(f"step {step} is none from 0 to {MOST_STEPS}")
    return stage, step, row


def _no_number(rows: Mapping[tuple[str, int], Mapping[str, Any]]) -> tuple[str, int, str]:
    """Returns stage, step and name of the first value that is neither a number nor null."""
    return next(
        (stage, step, name)
        for (stage, step), row in rows.items()
        for name, value in row.items()
        if type(value) not in NUMBERS or (type(value) is int and abs(value) > LARGEST)
    )
