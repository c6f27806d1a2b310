"""Low-rank adapters (LoRA, arXiv 2106.09685): trained beside frozen weights, and merged into them on the way out.

Saved folders and samplers that take weights over see a plain model with the merged weights; only the optimizer and
checkpoints know of adapters. peft makes them.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import PreTrainedModel

from klear_lab.config import ConfigError

ADAPTER = "default"
PREFIXES = ("lora_A.", "lora_B.", "lora_embedding_", "lora_magnitude_")


def add_adapters(model: PreTrainedModel, rank: int, alpha: int) -> None:
    """Puts an adapter of `rank` beside every linear layer but the output head, and freezes all other weights.

    An adapter adds alpha / rank times its product, 0 at the start; its other factor starts from the same
    random numbers for every seed. Raises `ConfigError` without peft, and for a model without a layer for one.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            f"model.lora_rank={rank}: needs peft; in the checkout, pip install -e '.[gpu]'"
        ) from error
    settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules="all-linear")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
        except ValueError as error:
            raise ConfigError(f"model.lora_rank={rank}: {error}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))


def is_adapter(name: str) -> bool:
    """Tells whether a weight's name is that of an adapter's."""
    return any(prefix in name for prefix in PREFIXES)


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of a model as it was before adapters came, with the adapters' share in them."""
    layers = {f"{name}.base_layer.weight": m for name, m in model.named_modules() if hasattr(m, "base_layer")}
    for name, weight in model.state_dict().items():
        if name in layers:
            yield name.replace(".base_layer.", "."), weight + layers[name].get_delta_weight(ADAPTER)
        elif not is_adapter(name):
            yield name.replace(".base_layer.", "."), weight
