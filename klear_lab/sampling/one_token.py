"""Reads one token of each sequence, the decoding step, without calling a model's modules.

For its speed alone: what stands between modules (arguments, hooks, masks made anew) takes longer than a small
model's arithmetic (`python benchmarks/one_token.py`). There are three ways:
- `read_one` does the operations of a known model's modules, and gives their bits;
- joined weights (sampling/joined.py) need fewer operations, and give the same but for rounding; they are for small
  models on a CPU, since they are held twice;
- models that aren't known do the step themselves.

Shapes: B sequences, H hidden size, A attention heads, D head dimension, I intermediate size, T columns of the
past, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from klear_lab.policy.dense import is_known
from klear_lab.sampling.cache import SlotCache
from klear_lab.sampling.joined import JoinedStep, can_be_joined

Step = Callable[[Tensor, Tensor, SlotCache], Tensor]


def step_of(model: PreTrainedModel) -> Step:
    """Returns what reads token_B at position_B after a cache's past, and returns the next token's logits_BV.

    It reads with the weights of now: ask again after an update.
    """
    if not is_known(model):
        return by_the_model(model)
    return JoinedStep(model) if can_be_joined(model) else without_modules(model)


def by_the_model(model: PreTrainedModel) -> Step:
    """Returns the same step by the model's own forward pass."""
    return lambda token_B, position_B, cache: model(
        input_ids=token_B[:, None],
        attention_mask=cache.attention_mask,
        position_ids=position_B[:, None],
        past_key_values=cache,
        use_cache=True,
    ).logits[:, -1]


def without_modules(model: PreTrainedModel) -> Step:
    """Returns the same step by `read_one`."""
    return lambda token_B, position_B, cache: read_one(model, token_B, position_B, cache)


def read_one(model: Any, token_B: Tensor, position_B: Tensor, cache: SlotCache) -> Tensor:
    """Does the step; writes keys and values into the cache, whose clock it doesn't advance."""
    hidden_BH = F.embedding(token_B, model.model.embed_tokens.weight)
    cos_B1D, sin_B1D = model.model.rotary_emb(hidden_BH, position_B[:, None])
    mask_B11T = cache.attention_mask[:, None, None]
    for layer, room in zip(model.model.layers, cache.rooms, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        input_BH = normed(layer.input_layernorm, hidden_BH)
        query_BAD, key_BAD, value_BAD = (
            linear(of, input_BH).unflatten(1, (-1, attention.head_dim))
            for of in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query_BAD, key_BAD = normed(attention.q_norm, query_BAD), normed(attention.k_norm, key_BAD)
        query_BAD, key_BAD = rotated(query_BAD, cos_B1D, sin_B1D), rotated(key_BAD, cos_B1D, sin_B1D)
        past = room.update(key_BAD[:, :, None], value_BAD[:, :, None])
        read_B1AD, _ = sdpa_attention_forward(
            attention, query_BAD[:, :, None], *past, mask_B11T, scaling=attention.scaling
        )
        hidden_BH = hidden_BH + linear(attention.o_proj, read_B1AD.flatten(1))
        input_BH = normed(layer.post_attention_layernorm, hidden_BH)
        gate_BI = mlp.act_fn(linear(mlp.gate_proj, input_BH))
        hidden_BH = hidden_BH + linear(mlp.down_proj, gate_BI * linear(mlp.up_proj, input_BH))
    return linear(model.lm_head, normed(model.model.norm, hidden_BH))


def linear(module: nn.Linear, x: Tensor) -> Tensor:
    """Does what the module does."""
    return F.linear(x, module.weight, module.bias)


def normed(module: Any, x: Tensor) -> Tensor:
    """Does what the module, an RMSNorm, does."""
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
    return module.weight * wide.to(x.dtype)


def rotated(x_BAD: Tensor, cos_B1D: Tensor, sin_B1D: Tensor) -> Tensor:
    """Turns queries or keys by their positions, as the models' `apply_rotary_pos_emb`."""
    first, second = x_BAD.chunk(2, dim=-1)
    return x_BAD * cos_B1D + torch.cat((-second, first), dim=-1) * sin_B1D
