"""From a composed config to a typed one: ranges, contradictions, and messages that name the key.

Every problem is found before anything is trained, and all of them are named at once.
"""

import dataclasses
import difflib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationKeyError,
    InterpolationResolutionError,
    OmegaConfBaseException,
)

from klear_lab.config import Config, ConfigError, OutOfMemory, RLConfig, VerifierUnavailable
from klear_lab.contradictions import contradictions, out_of_range
from klear_lab.data_source_config import DATA_SOURCES
from klear_lab.identity import run_id
from klear_lab.launchers import how_to_install
from klear_lab.sandbox.isolation import SandboxUnavailable
from klear_lab.storage.files import StorageError
from klear_lab.storage.run_folder import RunFolder

T = TypeVar("T")

# What a person can put right; the message says how, so no traceback is shown.
USERS_ERRORS = (
    *(ConfigError, SandboxUnavailable, VerifierUnavailable, StorageError, FloatingPointError, OutOfMemory),
    *(HydraException, OmegaConfBaseException),
)


def parse(composed: DictConfig) -> Config:
    """Returns the typed config of a composed one. Raises `ConfigError` that lists every problem found."""
    taken_away = {f.name for f in dataclasses.fields(Config)} - {*composed.keys()}  # with ~key
    missing = sorted(OmegaConf.missing_keys(composed) | taken_away)
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
    found = out_of_range(config)
    # A finished run's config was checked when it ran, and some checks need torch, which takes seconds to import.
    if not RunFolder.of(config, run_id(composed)).is_finished():
        found += contradictions(config)
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


def wrong_kinds(schema: Any, content: Any, key: str) -> Iterator[str]:
    """Yields a line for each list, mapping or single value that stands where the schema has another of the three.

    OmegaConf names such a key in part, if at all.
    """
    kinds = get_args(schema)
    if type(None) in kinds:
        if content is None:
            return
        (schema,) = (kind for kind in kinds if kind is not type(None))
        kinds = get_args(schema)
    shown = "null" if content is None else content
    if get_origin(schema) is list:
        if isinstance(content, list):
            for i, value in enumerate(content):
                yield from wrong_kinds(kinds[0], value, f"{key}[{i}]")
        else:
            yield f"{key}={shown}: must be a list" + ("" if content is None else f", so write [{content}]")
    elif get_origin(schema) is dict or dataclasses.is_dataclass(schema):
        if isinstance(content, dict):
            inner = {} if get_origin(schema) is dict else get_type_hints(schema)
            for name, value in content.items():
                yield from wrong_kinds(inner.get(name, Any) if inner else kinds[1], value, f"{key}.{name}")
        else:
            yield f"{key}={shown}: must be a mapping{example_of(schema)}"
    elif schema is not Any and (content is None or isinstance(content, list | dict)):
        yield f"{key}={shown}: must be a single value"


def example_of(schema: Any) -> str:
    """Says which keys a mapping has, where they are known."""
    if not dataclasses.is_dataclass(schema):
        return " of names, {} for none"
    return f" with keys such as {dataclasses.fields(schema)[0].name}"


def unknown_in_phases(phases: Any) -> list[str]:
    """Returns one line for each key of a phase that nothing reads."""
    if not phases:
        return []
    from klear_lab.rl.phases import OF_THE_RUN  # not above: as in `contradictions`

    known = ["ability", *(f.name for f in dataclasses.fields(RLConfig) if f.name not in OF_THE_RUN)]
    each = [(i, phase) for i, phase in enumerate(phases) if isinstance(phase, dict)]
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
        # Composed under the schema, it has the types already, and merging takes twenty times as long.
        has_types = OmegaConf.get_type(node) is schema
        typed = OmegaConf.to_object(node if has_types else OmegaConf.merge(OmegaConf.structured(schema), node))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(typed, schema)
    return typed


def explain(error: Exception) -> str:
    """Explains in one message what Hydra, OmegaConf or `parse` found wrong: the key, and what it may be."""
    if isinstance(error, OverrideParseException):
        said = [line for line in str(error).splitlines() if "hydra.cc" not in line and error.override not in line]
        why = f" ({' '.join(said)})" if " ".join(said).strip(" ^") else ""
        return f"{error.override or repr('')}: {how_to_quote(error.override, why)}"
    if isinstance(error, MissingConfigException) and (line := how_to_install(error.missing_cfg_file)) is not None:
        return line
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


def how_to_quote(override: str, why: str) -> str:
    """Says how to type what can't be read: as key=value, with quotes around texts, which lists have inside."""
    key, equals, value = override.partition("=")
    if not (key and equals):
        return "must be key=value"
    inside = {"[": "=['first text', 'second text']", "{": "={name: 'a text'}"}
    for bracket, example in inside.items():
        if value.startswith(bracket):
            what = f"quote each text inside of the {bracket}, within the shell's quotes"
            return f'can\'t be read{why}; {what}, as in "{key}{example}"'
    escaped = value.replace("'", r"\'")
    typed = f"{key}='{escaped}'"
    quoted = shlex.quote(typed) if {*'"$`!\\'} & {*value} else f'"{typed}"'
    return f"can't be read{why}; quote the value, within the shell's quotes: {quoted}"


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
    content = readable(node)
    if lines := [*wrong_kinds(schema, content, "data_source"), *unknown_keys(schema, content, "data_source.")]:
        raise ConfigError("\n".join(lines))
    return to_dataclass(schema, node, "data_source.")
