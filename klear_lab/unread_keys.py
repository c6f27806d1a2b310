"""Names the keys of a config that are set and that nothing reads: they would make another run in name alone."""

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

from omegaconf import OmegaConf

from klear_lab.command_line import CONF
from klear_lab.config import Config, EmbeddedSourceConfig, ModelConfig, SamplerConfig, TeacherConfig
from klear_lab.data_source_config import parts_of

FROM_SCRATCH = ("hidden_size", "layers", "heads", "max_positions")


def all_unread_keys(config: Config) -> list[str]:
    """Returns a line for each key that isn't its default and can't change anything beside the other keys."""
    return [
        *unread_sampler_keys(config.sampler),
        *unread_data_keys(config),
        *unread_teacher(config),
        *unread_model_keys(config.model),
    ]


def unread_sampler_keys(sampler: SamplerConfig) -> list[str]:
    """Returns a line for each key of vLLM that is set for another sampler."""
    if sampler.name == "vllm":
        return []
    names = [f.name for f in dataclasses.fields(sampler) if f.name != "name"]
    return [
        f"sampler.{key}={value}: only vLLM has it; set sampler=vllm, or leave it out"
        for key, value, _ in set_keys(sampler, names)
    ]


def unread_data_keys(config: Config) -> list[str]:
    """Returns a line for each key that chooses among SFT rows where there is nothing to choose."""
    data, found = config.data, []
    if data.sft_budget is None:
        found += [
            f"data.{key}={value}: says how data.sft_budget rows are chosen, which is null; must be {default}, or "
            "data.sft_budget a number"
            for key, value, default in set_keys(data, ("subset", "embedding"))
        ]
    worlds = embedded_worlds(config.data_source)
    sources = sum(world.sources for world in worlds)
    if data.top_sources is not None and worlds and (sources == 1 or data.top_sources > sources):
        found.append(
            f"data.top_sources={data.top_sources}: data_source={config.data_source.name} makes rows of {sources} "
            f"source{'s' * (sources > 1)}, all of which would be kept; must be null"
        )
    return found


def unread_teacher(config: Config) -> list[str]:
    """Returns a line for a teacher that is chosen where no source lets one write."""
    teacher, default = config.teacher, default_teacher()
    if teacher == default or any(world.sources == 1 for world in embedded_worlds(config.data_source)):
        return []
    source = config.data_source
    why = "lets each of its sources have its own" if embedded_worlds(source) else "brings its rows"
    return [
        f"teacher={teacher.name} (misconceptions {teacher.misconceptions}, error_rate {teacher.error_rate}): only "
        f"writes for an embedded world with a single source, and data_source={source.name} {why}; must be "
        f"{default.name}"
    ]


def unread_model_keys(model: ModelConfig) -> list[str]:
    """Returns a line for each size of a model that brings its own, and for a key of adapters without any."""
    sizes = () if model.path is None else FROM_SCRATCH
    found = [
        f"model.{key}={value}: is a size of a model from scratch, and model.path={model.path} brings its own; "
        f"must be {default}"
        for key, value, default in set_keys(model, sizes)
    ]
    if model.lora_rank is None:
        found += [
            f"model.{key}={value}: only adapters have it; must be {default} with model.lora_rank=null"
            for key, value, default in set_keys(model, ("lora_alpha",))
        ]
    return found


def set_keys(part: Any, names: Sequence[str]) -> list[tuple[str, Any, Any]]:
    """Returns name, value and the schema's default of those keys of a part that aren't their default."""
    default = type(part)()
    triples = [(name, getattr(part, name), getattr(default, name)) for name in names]
    return [(name, value, usual) for name, value, usual in triples if value != usual]


def embedded_worlds(source: Any) -> list[EmbeddedSourceConfig]:
    """Returns the embedded worlds that a data source is made of; none for rows from elsewhere."""
    return [part for part in parts_of(source) if isinstance(part, EmbeddedSourceConfig)]


@cache
def default_teacher() -> TeacherConfig:
    """Returns the teacher that conf/config.yaml chooses."""
    choices: Any = OmegaConf.load(CONF / "config.yaml")
    (option,) = (entry["teacher"] for entry in choices.defaults if OmegaConf.is_dict(entry) and "teacher" in entry)
    content: Any = OmegaConf.to_container(OmegaConf.load(CONF / "teacher" / f"{option}.yaml"))
    return TeacherConfig(**content)
