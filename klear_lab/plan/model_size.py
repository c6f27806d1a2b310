"""What is known of a model from its config alone: parameters by what they do, and the shape of its attention."""

import json
import re
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.policy.folder_checks import LOAD_ERRORS, set_positions
from klear_lab.policy.lora import add_adapters, is_adapter
from klear_lab.policy.model import character_tokenizer, expanded, revision, tiny_config


@dataclass(frozen=True)
class ModelSize:
    """Holds the parameters of a model, all that are `trained`, and those that a token's matrix products use.

    `attention` is layers times heads times head dimension: a token's products with one token before it are 4 FLOPs
    for each.
    """

    parameters: int
    trained: int
    used: int
    layers: int
    attention: int


def read_model_config(model: ModelConfig) -> PreTrainedConfig:
    """Returns the config of a model from scratch, a folder, or the hub's as far as this machine has it.

    Raises `ConfigError` that names the missing file, and for a model that can't have the positions of the config.
    """
    if model.path is None:
        return tiny_config(model, character_tokenizer())
    path = expanded(model.path)
    if Path(path).is_dir() and not (Path(path) / "config.json").is_file():
        raise ConfigError(f"model.path={path}: there is no config.json in it, from which a plan is made")
    try:
        found = AutoConfig.from_pretrained(path, local_files_only=True, **revision(path, model))
    except LOAD_ERRORS as error:
        if Path(path).is_dir():
            raise ConfigError(f"model.path={path}: its config.json can't be read ({error})") from error
        raise ConfigError(
            f"model.path={path}: its config.json isn't on this machine; `hf download {path} config.json` brings it"
        ) from error
    assert isinstance(found, PreTrainedConfig)
    set_positions(path, found, model.positions)
    return found


def as_key(config: PreTrainedConfig) -> str:
    """Returns a model's config as text, by which what was worked out for it is kept."""
    return json.dumps({"model_type": config.model_type, **config.to_dict()}, sort_keys=True, default=str)


def without_content(config: PreTrainedConfig, lora: int | None = None) -> PreTrainedModel:
    """Builds a model whose weights have a shape and nothing else, with adapters of rank `lora` if given."""
    config = deepcopy(config)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        if lora is not None:
            add_adapters(model, lora, lora)
    return model


def sequence_flops(size: ModelSize, length: float, each: float) -> float:
    """Returns the FLOPs of one sequence, of which a forward pass has 2 for each parameter used."""
    return each * (size.used * length + size.attention * length**2)


def size_of(config: PreTrainedConfig, lora: int | None = None) -> ModelSize:
    """Counts the parameters of a model, those of adapters of rank `lora` among them."""
    return counted(as_key(config), lora, Hidden(config))


class Hidden:
    """Carries a config past a cache's key, which is its text."""

    def __init__(self, config: PreTrainedConfig) -> None:
        """Takes the config."""
        self.config = config

    def __eq__(self, other: object) -> bool:
        """Is equal to every other one."""
        return isinstance(other, Hidden)

    def __hash__(self) -> int:
        """Is the same for all."""
        return 0


@lru_cache(maxsize=64)
def counted(key: str, lora: int | None, hidden: Hidden) -> ModelSize:
    """Counts as `size_of` does, once for each model."""
    config = hidden.config
    model = without_content(config, lora)
    text: Any = config.get_text_config(decoder=True)
    named = dict(model.named_parameters())
    total = sum(p.numel() for p in named.values())
    read: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    looked_up = 0 if head is not None and head.weight is read.weight else read.weight.numel()
    idle = sum(p.numel() for name, p in named.items() if is_expert(name)) * (1 - active_share(text))
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelSize(
        parameters=total,
        trained=sum(p.numel() for name, p in named.items() if lora is None or is_adapter(name)),
        used=round(total - looked_up - idle),
        layers=text.num_hidden_layers,
        attention=text.num_hidden_layers * heads * width,
    )


def is_expert(name: str) -> bool:
    """Tells whether a weight is one of a mixture's experts, of which a token uses some."""
    return re.search(r"\bexperts\b", name) is not None and "shared" not in name


def active_share(config: Any) -> float:
    """Returns the share of the experts that a token uses; 1 for a model without."""
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    experts = next((value for name in names if (value := getattr(config, name, None))), None)
    used = getattr(config, "num_experts_per_tok", None)
    return min(1.0, used / experts) if experts and used else 1.0


def layers_alike(model: PreTrainedModel) -> bool:
    """Tells whether all layers of a model have the same weights and the same kind of attention."""
    layers: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, parameter in model.named_parameters():
        if found := re.match(r"(.*?)\.(\d+)\.(.*)", name):
            layers.setdefault(found[2], []).append((found[3], tuple(parameter.shape)))
    text: Any = model.config.get_text_config(decoder=True)
    kinds = {*(getattr(text, "layer_types", None) or [])}
    shapes = [*layers.values()]
    return len(kinds) <= 1 and len(shapes) == text.num_hidden_layers and all(s == shapes[0] for s in shapes)


def with_layers(config: PreTrainedConfig, count: int) -> PreTrainedConfig:
    """Returns the config of the same model with another number of layers, all alike."""
    changed = deepcopy(config)
    text: Any = changed.get_text_config(decoder=True)
    kinds = getattr(text, "layer_types", None)
    text.num_hidden_layers = count
    if kinds:
        text.layer_types = kinds[:count]
    return changed
