"""Reads one token of each sequence: the decoding step, in the operations of transformers' modules and their bits.

For its speed alone: without what stands between modules (arguments, hooks, masks made anew), a step of the tiny
model takes 0.7 of their time for up to 64 sequences, 0.9 for 256 and more, and sampling a rollout a fifth less
(`python benchmarks/one_token.py`). Models that aren't known here to be alike do the step themselves.

Shapes: B sequences, H hidden size, N heads, D head dimension, T columns of the past, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from klear_lab.sampling.cache import SlotCache

Step = Callable[[Tensor, Tensor, SlotCache], Tensor]
KNOWN = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
NORMS = (LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)


def step_of(model: PreTrainedModel) -> Step:
    """Returns what reads token_B at position_B after a cache's past, and returns the next token's logits_BV."""
    if is_known(model):
        return lambda token_B, position_B, cache: read_one(model, token_B, position_B, cache)
    return by_the_model(model)


def by_the_model(model: PreTrainedModel) -> Step:
    """Returns the same step by the model's own forward pass."""
    return lambda token_B, position_B, cache: model(
        input_ids=token_B[:, None],
        attention_mask=cache.attention_mask,
        position_ids=position_B[:, None],
        past_key_values=cache,
        use_cache=True,
    ).logits[:, -1]


def is_known(model: PreTrainedModel) -> bool:
    """Tells whether `read_one` does what the model does: no hook, adapter, window or other attention is in it."""
    if type(model) not in KNOWN or model.config._attn_implementation != "sdpa":
        return False
    if {*(getattr(model.config, "layer_types", None) or ["full_attention"])} != {"full_attention"}:
        return False
    if any(type(module) not in (nn.Linear, nn.Embedding, *NORMS) for module in leaves(model)):
        return False
    return not any(is_changed(module) for module in model.modules())


def is_changed(module: nn.Module) -> bool:
    """Tells whether a module does other things than its library wrote, as what moves weights between devices."""
    own = type(module).__module__.partition(".")[0] not in ("torch", "transformers")
    return own or bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def leaves(model: Any) -> list[nn.Module]:
    """Returns the modules that `read_one` takes weights from without calling them."""
    found = [model.model.embed_tokens, model.model.norm, model.lm_head]
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        found += [layer.input_layernorm, layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        found += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        found += [attention.q_norm, attention.k_norm] if hasattr(attention, "q_norm") else []
    return found


def read_one(model: Any, token_B: Tensor, position_B: Tensor, cache: SlotCache) -> Tensor:
    """Does the step; writes keys and values into the cache, whose clock it doesn't advance."""
    hidden_BH = F.embedding(token_B, model.model.embed_tokens.weight)
    cos_B1D, sin_B1D = model.model.rotary_emb(hidden_BH, position_B[:, None])
    mask_B11T = cache.attention_mask[:, None, None]
    for layer, room in zip(model.model.layers, cache.rooms, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        input_BH = normed(layer.input_layernorm, hidden_BH)
        query_BND, key_BND, value_BND = (
            linear(of, input_BH).unflatten(1, (-1, attention.head_dim))
            for of in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        if hasattr(attention, "q_norm"):
            query_BND, key_BND = normed(attention.q_norm, query_BND), normed(attention.k_norm, key_BND)
        query_BND, key_BND = rotated(query_BND, cos_B1D, sin_B1D), rotated(key_BND, cos_B1D, sin_B1D)
        past = room.update(key_BND[:, :, None], value_BND[:, :, None])
        read_B1ND, _ = sdpa_attention_forward(
            attention, query_BND[:, :, None], *past, mask_B11T, scaling=attention.scaling
        )
        hidden_BH = hidden_BH + linear(attention.o_proj, read_B1ND.flatten(1))
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


def rotated(x_BND: Tensor, cos_B1D: Tensor, sin_B1D: Tensor) -> Tensor:
    """Turns queries or keys by their positions, as the models' `apply_rotary_pos_emb`."""
    first, second = x_BND.chunk(2, dim=-1)
    return x_BND * cos_B1D + torch.cat((-second, first), dim=-1) * sin_B1D
