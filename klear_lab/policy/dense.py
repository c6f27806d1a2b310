"""Which models' forward passes are known by heart: plain dense decoders, of the families of Llama and Qwen.

A known model's weights may be used without calling its modules, which is faster: by training for short sequences
(policy/packed.py) and by sampling (sampling/one_token.py). All other models do their own forward pass.

Shapes: B tokens, H hidden size, O the other side of projections, A attention heads of queries and keys,
D head dimension.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.activations import ACT2FN

KNOWN = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
PARTS = (nn.Linear, nn.Embedding, nn.ModuleList)
ACTIVATIONS = ("transformers.activations", "torch.nn.modules.activation")
SILUS = (nn.SiLU, type(ACT2FN["silu"]))
ROTATIONS = ("default", "linear", "llama3", "yarn")  # those that don't depend on the longest sequence
Projection = tuple[Tensor, Tensor | None]  # weight and bias


def is_known(model: PreTrainedModel) -> bool:
    """Tells whether a model does only what its family does: it has no hook, adapter, window or other attention."""
    if type(model) not in KNOWN or model.config._attn_implementation != "sdpa":
        return False
    if {*(getattr(model.config, "layer_types", None) or ["full_attention"])} != {"full_attention"}:
        return False
    return all(is_plain(module, type(model).__module__) for module in modules_of(model))


def is_plain(module: nn.Module, family: str) -> bool:
    """Tells whether a module is of a kind that plain models have, and nobody changed what it does.

    `family` is the module of Python in which the model's kinds are written.
    """
    kind, own = type(module), vars(module)
    if kind not in PARTS and kind.__module__ != family and kind.__module__ not in ACTIVATIONS:
        return False
    return not (own["_forward_hooks"] or own["_forward_pre_hooks"] or "forward" in own)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Returns a model and all modules in it; `model.modules()` takes five times as long."""
    found = [model]
    for module in found:  # which grows
        found += filter(None, module._modules.values())
    return found


def numbers_of(model: nn.Module) -> int:
    """Returns the size of all parameters, as `num_parameters` does, in less time."""
    parameters = (parameter for module in modules_of(model) for parameter in module._parameters.values())
    return sum(parameter.numel() for parameter in {*parameters} if parameter is not None)


def has_plain_parts(model: Any) -> bool:
    """Tells whether a known model's gates are SiLUs, and its rotations depend on positions alone."""
    gates_are_silus = all(type(layer.mlp.act_fn) in SILUS for layer in model.model.layers)
    return gates_are_silus and model.model.rotary_emb.rope_type in ROTATIONS


def joined(norm: Any, *projections: nn.Linear) -> Projection:
    """Returns weight_OH and bias_O of projections side by side, with the weight of the norm before them in it."""
    weights: list[Tensor] = [projection.weight for projection in projections]
    biases: list[Tensor] = [projection.bias for projection in projections if projection.bias is not None]
    return as_one(weights) * norm.weight, as_one(biases) if biases else None


def as_one(parts: list[Tensor]) -> Tensor:
    """Returns tensors one after another; a single one isn't copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def transposed(projection: nn.Linear) -> Projection:
    """Returns the weight of a projection, transposed as a view, and its bias."""
    return projection.weight.t(), projection.bias


def added(hidden_BH: Tensor, x_BO: Tensor, weight_OH: Tensor, bias_H: Tensor | None) -> Tensor:
    """Returns the sum of hidden states and a projection of x, whose weight is transposed."""
    return torch.addmm(hidden_BH if bias_H is None else hidden_BH + bias_H, x_BO, weight_OH)


def norm_of_heads(attention: Any) -> Tensor | None:
    """Returns the weight_AD by which normed queries and keys are multiplied; None where the model norms none."""
    if not hasattr(attention, "q_norm"):
        return None
    heads = ((attention.q_norm, attention.q_proj), (attention.k_norm, attention.k_proj))
    size = attention.head_dim
    return torch.cat([norm.weight.expand(projection.out_features // size, size) for norm, projection in heads])
