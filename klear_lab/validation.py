"""From a composed config to a typed one: ranges, contradictions, and messages that name the key.

Every problem is found before anything is trained, and all of them are named at once.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from klear_lab.config import Config, ConfigError, RLConfig, SamplerConfig, VerifierUnavailable
from klear_lab.data.columns import checked_columns
from klear_lab.data_source_config import (
    DATA_SOURCES,
    DatasetSourceConfig,
    ReasoningGymConfig,
    RowSetConfig,
    is_absent,
    row_sets,
)
from klear_lab.sandbox.isolation import SandboxUnavailable
from klear_lab.storage.files import StorageError

T = TypeVar("T")

# What a person can put right; the message says how, so no traceback is shown.
USERS_ERRORS = (
    *(ConfigError, SandboxUnavailable, VerifierUnavailable, StorageError, FloatingPointError),
    *(HydraException, OmegaConfBaseException),
)


def parse(composed: DictConfig) -> Config:
    """Returns the typed config of a composed one. Raises `ConfigError` that lists every problem found."""
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError("\n".join(f"{key}: has no value; set {key}=..." for key in missing))
    content = readable(composed)
    unknown = unknown_keys(Config, content, "")  # "+key=value" gets past the schema
    unknown += unknown_in_phases(content["rl"].get("phases"))
    if unknown:
        raise ConfigError("\n".join(unknown))
    config = to_dataclass(Config, composed, "")
    config.data_source = typed_source(composed.data_source)
    if config.model.path is not None and config.model.path.startswith("~"):
        config.model.path = str(Path(config.model.path).expanduser())  # as the other paths
    found = [*out_of_range(config), *contradictions(config)]
    if found:
        raise ConfigError("\n".join(found))
    return config


def readable(composed: DictConfig) -> dict[str, Any]:
    """Returns a config as plain values. Raises `ConfigError` for an interpolation of what isn't there."""
    try:
        content = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def unknown_keys(schema: Any, content: Any, prefix: str) -> list[str]:
    """Returns one line for each key that nothing reads, at any depth of what the schema describes."""
    kinds = [kind for kind in get_args(schema) if kind is not type(None)]
    if isinstance(content, list):
        pairs = [(f"{prefix[:-1]}[{i}].", value) for i, value in enumerate(content)]
        return [line for key, value in pairs for line in unknown_keys(kinds[-1] if kinds else None, value, key)]
    if not isinstance(content, dict):
        return []
    if get_origin(schema) is dict:
        return [line for key in content for line in unknown_keys(kinds[-1], content[key], f"{prefix}{key}.")]
    schema = schema if dataclasses.is_dataclass(schema) or not kinds else kinds[0]
    if not dataclasses.is_dataclass(schema):
        return []
    hints = get_type_hints(schema)
    found = [no_such_key(prefix, str(key), list(hints)) for key in content if key not in hints]
    for key in hints:
        found += unknown_keys(hints[key], content.get(key), f"{prefix}{key}.")
    return found


def unknown_in_phases(phases: Any) -> list[str]:
    """Returns one line for each key of a phase that nothing reads."""
    from klear_lab.rl.phases import OF_THE_RUN  # not above: as in `contradictions`

    known = ["ability", *(f.name for f in dataclasses.fields(RLConfig) if f.name not in OF_THE_RUN)]
    each = [(i, phase) for i, phase in enumerate(phases or []) if isinstance(phase, dict)]
    return [
        no_such_key(f"rl.phases[{i}].", str(k), known, "unknown")
        for i, phase in each
        for k in phase
        if k not in known
    ]


def no_such_key(prefix: str, wrong: str, known: Sequence[str], said: str = "there is no such key") -> str:
    """Says that nothing reads a key, what may have been meant, and which keys there are."""
    close = difflib.get_close_matches(wrong, known, n=1, cutoff=0.5)
    hint = f"; did you mean {prefix}{close[0]}? One of" if close else "; one of"
    return f"{prefix}{wrong}: {said}{hint} {', '.join(known)}"


def to_dataclass(schema: type[T], node: DictConfig, prefix: str) -> T:
    """Turns a node into an instance of its dataclass. Raises `ConfigError` for a value of the wrong type."""
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), node))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(typed, schema)
    return typed


def explain(error: Exception) -> str:
    """Explains in one message what Hydra, OmegaConf or `parse` found wrong: the key, and what it may be."""
    if isinstance(error, OverrideParseException):
        said = [line for line in str(error).splitlines() if "hydra.cc" not in line and error.override not in line]
        why = f" ({' '.join(said)})" if " ".join(said).strip(" ^") else ""
        key, _, value = error.override.partition("=")
        quoted = f"\"{key}='{value}'\""
        return f"{error.override}: can't be read{why}; quote the value, within the shell's quotes: {quoted}"
    lines = [str(error).strip()]
    if (groupless := re.match(r"Could not override '(.*)'. No match in the defaults list", lines[0])) is not None:
        return (
            f"{groupless[1]}: the main config chooses no {groupless[1]}; set its keys, as {groupless[1]}.<key>=..."
        )
    if isinstance(error, InterpolationResolutionError | InterpolationKeyError):
        return f"{error.full_key}: {lines[0].splitlines()[0]}"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException):
        lines.append(str(cause).strip())
    inner = error if isinstance(error, OmegaConfBaseException) else cause
    if isinstance(inner, ConfigAttributeError | ConfigKeyError) and inner.full_key:
        parent, _, wrong = inner.full_key.rpartition(".")
        allowed = sorted(map(str, inner.parent_node or []))
        close = difflib.get_close_matches(wrong, allowed, n=1)
        prefix = f"{parent}." if parent else ""
        lines = [
            f"{prefix}{wrong}: there is no such key" + (f"; did you mean {prefix}{close[0]}?" if close else "")
        ]
        lines.append(f"The keys{f' of {parent}' if parent else ''}: {', '.join(allowed)}")
        if parent.endswith(".columns"):
            lines = [f"{parent}.{wrong}: isn't there yet; to add it, type a + first: '+{parent}.{wrong}=...'"]
        elif parent.endswith(".benchmarks"):
            lines = [f"{parent}.{wrong}: isn't there yet; to add it, type '+{parent}.{wrong}={{files: [...]}}'"]
    return "\n".join(lines)


def typed_source(node: DictConfig) -> Any:
    """Turns the node into the data source's own dataclass, chosen by its `name`."""
    if not isinstance(node, DictConfig) or node.get("name") not in DATA_SOURCES:
        if not isinstance(node, DictConfig):
            raise ConfigError(f"data_source={node}: must be one of the data sources, a group's option")
        raise ConfigError(f"data_source.name={node.get('name')}: must be one of {', '.join(DATA_SOURCES)}")
    schema = DATA_SOURCES[node.name]
    keys = {f.name for f in dataclasses.fields(schema)}
    unknown, absent = sorted(set(node) - keys), sorted(keys - set(node))
    if unknown or absent:
        lines = [no_such_key("data_source.", str(key), sorted(keys), "unknown") for key in unknown]
        raise ConfigError("\n".join(lines + [f"data_source.{key}: has no value" for key in absent]))
    if lines := unknown_keys(schema, readable(node), "data_source."):
        raise ConfigError("\n".join(lines))
    if schema is DatasetSourceConfig:
        benchmarks = {f"benchmarks.{name}": rows for name, rows in (node.benchmarks or {}).items()}
        for key, rows in {"sft": node.sft, "rl": node.rl, **benchmarks}.items():
            if isinstance(rows, DictConfig) and isinstance(files := rows.get("files"), str):
                raise ConfigError(f"data_source.{key}.files={files}: must be a list, so write [{files}]")
    return to_dataclass(schema, node, "data_source.")


def out_of_range(config: Any, prefix: str = "") -> list[str]:
    """Returns one line for each value outside what its field allows."""
    found = []
    for f in dataclasses.fields(config):
        value, key = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            found += out_of_range(value, f"{key}.")
        elif any_infinite(value) and not (f.metadata.get("may be infinite") and value == math.inf):
            found.append(f"{key}={value}: must be a finite number")
        elif "test" in f.metadata and value is not None and not f.metadata["test"](value):
            found.append(f"{key}={value}: must be {f.metadata['must be']}")
    return found


def any_infinite(value: Any) -> bool:
    """Whether a value, or one in a list, is infinite or not a number."""
    values = value if isinstance(value, list) else [value]
    return any(isinstance(number, float) and not math.isfinite(number) for number in values)


def contradictions(config: Config) -> list[str]:
    """Returns one line for each pair of keys that can't both hold."""
    from klear_lab.rl.clip_methods import make_clip_method  # not above: --help needn't wait for torch

    model, found = config.model, data_contradictions(config)
    found += rl_contradictions(config)
    found += unread_sampler_keys(config.sampler)
    if model.name == "path" and model.path is None:
        found.append("model.path=null: must be a folder or a hub name with model=path, e.g. Qwen/Qwen3-0.6B")
    if model.path is None and model.heads > 0 and model.hidden_size % model.heads:
        found.append(f"model.heads={model.heads}: must divide model.hidden_size={model.hidden_size}")
    if config.difficulty_filter.minimum > config.difficulty_filter.maximum:
        found.append("difficulty_filter.minimum: must be at most difficulty_filter.maximum")
    try:
        make_clip_method(**config.clip_method)
    except (TypeError, ValueError) as error:
        found.append(f"clip_method.{error}")
    return found


def unread_sampler_keys(sampler: SamplerConfig) -> list[str]:
    """Returns a line for each key of vLLM that is set for another sampler."""
    return [
        f"sampler.{f.name}={getattr(sampler, f.name)}: only vLLM has it; set sampler=vllm, or leave it out"
        for f in dataclasses.fields(sampler)
        if f.name != "name" and sampler.name != "vllm" and getattr(sampler, f.name) != f.default
    ]


def rl_contradictions(config: Config) -> list[str]:
    """Returns the contradictions within RL, in each of its phases."""
    from klear_lab.rl.phases import phases_of  # not above: as in `contradictions`

    try:
        phases = phases_of(config.rl)
    except ConfigError as error:
        return [str(error)]
    found = []
    for number, phase in enumerate(phases):
        rl, prefix = phase.settings, f"rl.phases[{number}]." if config.rl.phases else "rl."
        if config.rl.phases:
            found += out_of_range(rl, prefix)
        if rl.mini_batch_prompts > 0 and rl.prompts_per_step % rl.mini_batch_prompts:
            divisors = [n for n in range(1, rl.prompts_per_step + 1) if rl.prompts_per_step % n == 0]
            found.append(
                f"{prefix}mini_batch_prompts={rl.mini_batch_prompts}: must divide "
                f"{prefix}prompts_per_step={rl.prompts_per_step}, so one of {', '.join(map(str, divisors))}"
            )
        if rl.alpha > 0 and not config.reward.uses_verifier:
            found.append(
                f"{prefix}alpha={rl.alpha}: the SFT term needs to know which responses are correct, and "
                f"reward={config.reward.name} checks none; must be 0 with this reward"
            )
    return found


def data_contradictions(config: Config) -> list[str]:
    """Returns the contradictions between a data source and how its rows are used."""
    source, data = config.data_source, config.data
    if isinstance(source, DatasetSourceConfig):
        found = [line for key, kind, rows in row_sets(source) for line in set_problems(key, kind, rows)]
        found += [line for name, rows in source.benchmarks.items() for line in benchmark_problems(name, rows)]
        absent = {key: f"data_source.{key} names neither files nor a repository" for key in ("sft", "rl")}
        absent = {key: why for key, why in absent.items() if is_absent(getattr(source, key))}
        if data.top_sources is not None and not source.quality_order:
            found.append(
                f"data.top_sources={data.top_sources}: nobody says which sources are best; set "
                "data_source.quality_order=[best,second,...], or data.top_sources=null"
            )
    else:
        found = [
            f"data.{key}=null: must be a number with data_source={source.name}, whose problems are made to order"
            for key in ("sft_rows", "rl_rows", "benchmark_rows")
            if getattr(data, key) is None
        ]
        absent = {}
    if isinstance(source, ReasoningGymConfig):
        absent = {"sft": f"data_source={source.name} has no traces of a teacher"}
        if data.decontaminate_ngram is not None:
            found.append(
                f"data.decontaminate_ngram={data.decontaminate_ngram}: must be null with data_source="
                f"{source.name}: all problems of a task share their wording, and a benchmark's are left out anyway"
            )
    for key, why in absent.items():
        steps = getattr(config, key).steps
        if steps > 0:
            found.append(
                f"{key}.steps={steps}: {why}, so there are no {key} rows; name some, or set {key}.steps=0"
            )
    if "sft" in absent and data.sft_budget is not None:
        found.append(f"data.sft_budget={data.sft_budget}: must be null, because {absent['sft']}")
    return found


def set_problems(key: str, kind: str, rows: RowSetConfig) -> list[str]:
    """Returns what is wrong with a set, before any of its files is looked for."""
    found = []
    if rows.repository is None:
        for name in ("config", "split", "revision"):
            if (value := getattr(rows, name)) is not None:
                found.append(
                    f"data_source.{key}.{name}={value}: only a repository has one; must be null with "
                    f"data_source.{key}.repository=null"
                )
    elif rows.split is None:
        found.append(f"data_source.{key}.split=null: must be one of the repository's, e.g. train")
    try:
        checked_columns(rows.columns, kind, f"data_source.{key}.columns")
    except ConfigError as error:
        found += [f"data_source.{key}.{line}" for line in str(error).splitlines()]
    return found


def benchmark_problems(name: str, rows: RowSetConfig) -> list[str]:
    """Returns what is wrong with a benchmark's set, or its name, which becomes a file's."""
    found = []
    if name in ("sft", "rl") or not re.fullmatch(r"\w[\w.-]*", name):
        found.append(
            f"data_source.benchmarks.{name}: must be a name of letters, digits, _, - and ., and neither sft nor rl"
        )
    if is_absent(rows):
        found.append(
            f"data_source.benchmarks.{name}: names neither files nor a repository; name some, or leave it out "
            f"with ~data_source.benchmarks.{name}"
        )
    return found
