"""Low-rank adapters (LoRA, arXiv 2106.09685): trained beside frozen weights, and merged into them on the way out.

Saved folders and samplers that take weights over see a plain model with the merged weights; only the optimizer and
checkpoints know of adapters. peft makes them.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from klear_lab.config import ConfigError

ADAPTER = "default"
PREFIXES = ("lora_A.", "lora_B.", "lora_embedding_", "lora_magnitude_")


def add_adapters(model: PreTrainedModel, rank: int, alpha: int) -> None:
    """Puts an adapter of `rank` beside every linear layer but the output head, and freezes all other weights.

    An adapter adds alpha / rank times its product, 0 at the start; its other factor starts from the same
    random numbers for every seed. Experts that are one tensor are no linear layers, and get none.
    Raises `ConfigError` without peft, for a model without a layer for one, and where the merged weights wouldn't
    be those of the model as it was.
    """
    try:
        from peft import LoraConfig
        from peft.tuners.lora import Linear
    except ImportError as error:
        raise ConfigError(
            f"model.lora_rank={rank}: needs peft; in the checkout, pip install -e '.[gpu]'"
        ) from error
    layers, before = linear_layers(model), shapes(model.state_dict().items())
    if not layers:
        raise ConfigError(f"model.lora_rank={rank}: the model has no linear layer but its output head")
    # Layer by layer, since peft's own way through a model puts adapters on experts and routers as well, in shapes
    # that it can't merge into the names that transformers saves.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, layer in layers.items():
            turned = isinstance(layer, Conv1D)  # GPT-2's, whose weight is the transpose of a linear layer's
            settings = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, fan_in_fan_out=turned)
            adapted = Linear(layer, ADAPTER, settings, rank, alpha, is_target_conv_1d_layer=turned)
            model.set_submodule(name, adapted)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
    with torch.no_grad():
        after = shapes(merged_weights(model))
    if wrong := sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)):
        raise ConfigError(
            f"model.lora_rank={rank}: adapters can't be merged into {wrong[0]} of this model; set it to null"
        )


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Returns a model's linear layers by name, without the output head."""
    head = model.get_output_embeddings()
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}


def shapes(weights: Iterable[tuple[str, Tensor]]) -> dict[str, torch.Size]:
    """Returns the shape of each weight by its name."""
    return {name: weight.shape for name, weight in weights}


def is_adapter(name: str) -> bool:
    """Tells whether a weight's name is that of an adapter's."""
    return any(prefix in name for prefix in PREFIXES)


def merged_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yields the weights of a model as it was before adapters came, with the adapters' share in them."""
    adapted = ((name, module) for name, module in model.named_modules() if hasattr(module, "get_delta_weight"))
    layers = {f"{name}.base_layer.weight": module for name, module in adapted}
    for name, weight in model.state_dict().items():
        if name in layers:
            yield name.replace(".base_layer.", "."), weight + layers[name].get_delta_weight(ADAPTER)
        elif not is_adapter(name):
            yield name.replace(".base_layer.", "."), weight
