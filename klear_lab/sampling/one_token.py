"""Reads one token of each sequence, the decoding step, without calling a model's modules.

For its speed alone: what stands between modules (arguments, hooks, masks made anew) takes longer than a small
model's arithmetic (`python benchmarks/one_token.py`). There are three ways:
- `read_one` does the operations of a known model's modules, and gives their bits;
- `read_one_joined` does fewer, with weights that are joined once for a rollout, and gives the same but for
  rounding; it is for small models in float32 on a CPU, since it holds weights twice;
- models that aren't known do the step themselves.

Shapes: B sequences, H hidden size, A attention heads, D head dimension, I intermediate size, T columns of the
past, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from klear_lab.policy.dense import Projection, added, is_known, joined, norm_of_heads, transposed
from klear_lab.sampling.cache import SlotCache

Step = Callable[[Tensor, Tensor, SlotCache], Tensor]
SMALL = 2**22  # numbers of a model whose weights may be held twice


def step_of(model: PreTrainedModel) -> Step:
    """Returns what reads token_B at position_B after a cache's past, and returns the next token's logits_BV.

    It reads with the weights of now: ask again after an update.
    """
    if not is_known(model):
        return by_the_model(model)
    autocast = torch.is_autocast_enabled(model.device.type)
    if model.device.type == "cpu" and not autocast and model.num_parameters() <= SMALL:
        weights = joined_model(model)
        return lambda token_B, position_B, cache: read_one_joined(weights, token_B, position_B, cache)
    return without_modules(model)


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


@dataclass(frozen=True)
class JoinedLayer:
    """Holds a layer's weights: joined where they multiply one thing, with the weight of the norm before in them.

    They are held here since asking modules for them takes as long as a small product.
    """

    query_key_value: Projection
    heads_AD: Tensor | None
    output: Projection
    gate_up: Projection
    down: Projection
    scaling: float
    epsilon: float


@dataclass(frozen=True)
class JoinedModel:
    """Holds what `read_one_joined` reads with: `heads` are those of queries, `turning` those of keys too."""

    embedding_VH: Tensor
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    heads: int
    turning: int
    layers: list[JoinedLayer]
    activation: Callable[[Tensor], Tensor]
    head: Projection


def joined_model(model: Any) -> JoinedModel:
    """Joins the weights of a model."""
    heads, body = model.config.num_attention_heads, model.model
    return JoinedModel(
        body.embed_tokens.weight,
        body.rotary_emb,
        heads,
        heads + model.config.num_key_value_heads,
        [joined_layer(layer) for layer in body.layers],
        body.layers[0].mlp.act_fn,
        joined_transposed(body.norm, model.lm_head),
    )


def joined_layer(layer: Any) -> JoinedLayer:
    """Joins the weights of a layer."""
    attention, mlp = layer.self_attn, layer.mlp
    return JoinedLayer(
        joined_transposed(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj),
        norm_of_heads(attention),
        transposed(attention.o_proj),
        joined_transposed(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj),
        transposed(mlp.down_proj),
        attention.scaling,
        layer.input_layernorm.variance_epsilon,
    )


def joined_transposed(norm: Any, *projections: nn.Linear) -> Projection:
    """Returns what `dense.joined` does, transposed once for all steps."""
    weight, bias = joined(norm, *projections)
    return weight.t(), bias


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns a projection of x."""
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def read_one_joined(model: JoinedModel, token_B: Tensor, position_B: Tensor, cache: SlotCache) -> Tensor:
    """Does the step as `read_one` does, but for rounding."""
    heads, turning, rows = model.heads, model.turning, len(token_B)
    hidden_BH = F.embedding(token_B, model.embedding_VH)
    cos_B1D, sin_B1D = model.rotary(hidden_BH, position_B[:, None])
    size, half = sin_B1D.shape[-1], sin_B1D.shape[-1] // 2
    sin_B1D[..., :half].neg_()  # for halves that have changed places
    mask_B11T = cache.attention_mask[:, None, None]
    for layer, room in zip(model.layers, cache.rooms, strict=True):
        all_BA1D = product(scaled(hidden_BH, layer.epsilon), *layer.query_key_value).view(rows, -1, 1, size)
        query_key_BAD = all_BA1D[:, :turning, 0]
        if layer.heads_AD is not None:
            query_key_BAD = scaled(query_key_BAD, layer.epsilon).mul_(layer.heads_AD)
        turned_BAD = (query_key_BAD * cos_B1D).addcmul_(query_key_BAD.roll(half, -1), sin_B1D)
        turned_BA1D = turned_BAD[:, :, None]
        past = room.update(turned_BA1D[:, heads:], all_BA1D[:, turning:])
        read_BA1D = F.scaled_dot_product_attention(
            turned_BA1D[:, :heads], *past, attn_mask=mask_B11T, scale=layer.scaling, enable_gqa=turning < 2 * heads
        )
        hidden_BH = added(hidden_BH, read_BA1D.flatten(1), *layer.output)
        gate_BI, up_BI = product(scaled(hidden_BH, layer.epsilon), *layer.gate_up).chunk(2, -1)
        hidden_BH = added(hidden_BH, model.activation(gate_BI).mul_(up_BI), *layer.down)
    return product(scaled(hidden_BH, model.layers[0].epsilon), *model.head)


def scaled(x: Tensor, epsilon: float) -> Tensor:
    """Returns an RMSNorm without its weight."""
    return F.rms_norm(x, x.shape[-1:], None, epsilon)
