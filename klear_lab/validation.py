"""From a composed config to a typed one: ranges, contradictions, and messages that name the key.

Every problem is found before anything is trained, and all of them are named at once.
"""

import dataclasses
import difflib
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from klear_lab.config import DATA_SOURCES, Config, ConfigError

T = TypeVar("T")


def parse(composed: DictConfig) -> Config:
    """The typed config of a composed one. Raises `ConfigError` with every problem found."""
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        raise ConfigError("\n".join(f"{key}: has no value; set {key}=..." for key in missing))
    config = to_dataclass(Config, composed, "")
    config.data_source = typed_source(composed.data_source)
    found = [*out_of_range(config), *contradictions(config)]
    if found:
        raise ConfigError("\n".join(found))
    return config


def to_dataclass(schema: type[T], node: DictConfig, prefix: str) -> T:
    """A node as an instance of its dataclass. Raises `ConfigError` for a value of the wrong type."""
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), node))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{prefix}{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(typed, schema)
    return typed


def explain(error: Exception) -> str:
    """One message for what Hydra, OmegaConf or `parse` found wrong: the key, and what it may be."""
    lines = [str(error).strip()]
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
    return "\n".join(lines)


def typed_source(node: DictConfig) -> Any:
    """The data source's own dataclass, chosen by its `name`."""
    if node.get("name") not in DATA_SOURCES:
        raise ConfigError(f"data_source.name={node.get('name')}: must be one of {', '.join(DATA_SOURCES)}")
    schema = DATA_SOURCES[node.name]
    keys = {f.name for f in dataclasses.fields(schema)}
    unknown, absent = sorted(set(node) - keys), sorted(keys - set(node))
    if unknown or absent:
        lines = [f"data_source.{key}: unknown; one of {', '.join(sorted(keys))}" for key in unknown]
        raise ConfigError("\n".join(lines + [f"data_source.{key}: has no value" for key in absent]))
    return to_dataclass(schema, node, "data_source.")


def out_of_range(config: Any, prefix: str = "") -> list[str]:
    """One line for each value outside what its field allows."""
    found = []
    for f in dataclasses.fields(config):
        value, key = getattr(config, f.name), f"{prefix}{f.name}"
        if dataclasses.is_dataclass(value):
            found += out_of_range(value, f"{key}.")
        elif "test" in f.metadata and value is not None and not f.metadata["test"](value):
            found.append(f"{key}={value}: must be {f.metadata['must be']}")
    return found


def contradictions(config: Config) -> list[str]:
    """One line for each pair of keys that can't both hold."""
    from klear_lab.rl.clip_methods import make_clip_method  # not above: --help needn't wait for torch

    rl, model, found = config.rl, config.model, []
    if rl.mini_batch_prompts > 0 and rl.prompts_per_step % rl.mini_batch_prompts:
        divisors = [n for n in range(1, rl.prompts_per_step + 1) if rl.prompts_per_step % n == 0]
        found.append(
            f"rl.mini_batch_prompts={rl.mini_batch_prompts}: must divide "
            f"rl.prompts_per_step={rl.prompts_per_step}, so one of {', '.join(map(str, divisors))}"
        )
    if rl.alpha > 0 and not config.reward.uses_verifier:
        found.append(
            f"rl.alpha={rl.alpha}: the SFT term needs to know which responses are correct, and "
            f"reward={config.reward.name} checks none; must be 0 with this reward"
        )
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
