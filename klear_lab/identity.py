"""What makes a run's identity: the part of its config that can change a result, and its hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING as ABSENT
from dataclasses import Field, asdict, fields, is_dataclass
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from klear_lab.config import Config
from klear_lab.own_code import known_source

# What `${source_of:...}` stands for: a run's identity has the text of a function of one's own in it.
OmegaConf.register_new_resolver("source_of", known_source, replace=True)

CHANGES_NO_RESULT = (
    *("experiment", "logger", "launcher", "runs_dir", "cache_dir", "progress", "sweep_name", "checkpoint"),
    *("reward_workers", "sandbox", "samples", "plan", "dry_run"),
)


def run_id(composed: DictConfig) -> str:
    """Names a run by its content: the same settings give the same folder, whatever the logger or paths."""
    content = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(content, dict)
    known = without_later_defaults(Config, content)
    return content_hash({key: value for key, value in known.items() if key not in CHANGES_NO_RESULT})


def identity_of(part: Any) -> Any:
    """Returns a part of a config as plain values, for the content that a stage is known by in the cache."""
    return without_later_defaults(type(part), asdict(part))


def without_later_defaults(schema: Any, content: Any) -> Any:
    """Returns a part of a config, of a type `schema`, without the keys declared `later` that have their defaults.

    So a new key leaves the identities of runs and stages that don't use it as they were. (A composed data source
    is of no type here, and has of its optional keys only those that somebody set.)
    """
    kinds = [kind for kind in get_args(schema) if kind is not type(None)]
    if isinstance(content, list):
        return [without_later_defaults(kinds[-1] if kinds else None, value) for value in content]
    if not isinstance(content, Mapping):
        return content
    if get_origin(schema) is dict:
        return {key: without_later_defaults(kinds[-1], value) for key, value in content.items()}
    known: Any = schema if is_dataclass(schema) or not kinds else kinds[0]
    if not is_dataclass(known):
        return dict(content)
    hints, later = typed(known)  # type: ignore[arg-type]  # classes are hashable
    kept = {key: without_later_defaults(hints.get(key), value) for key, value in content.items()}
    return {key: value for key, value in kept.items() if key not in later or value != later[key]}


@cache
def typed(schema: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the types of a dataclass's fields by name, and the defaults of those declared `later`."""
    later = {f.name: default_of(f) for f in fields(schema) if f.metadata.get("later")}
    return get_type_hints(schema), later


def default_of(declared: Field[Any]) -> Any:
    """Returns the default of a field declared `later`, as `without_later_defaults` would return it."""
    assert declared.default_factory is not ABSENT
    value = declared.default_factory()
    return identity_of(value) if is_dataclass(value) else value


def content_hash(content: Any) -> str:
    """Twelve hexadecimal digits of the SHA-256 of the canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
