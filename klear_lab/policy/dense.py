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
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

KNOWN = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
NORMS = (LlamaRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
ROTATIONS = ("default", "linear", "llama3", "yarn")  # those that don't depend on the longest sequence
Projection = tuple[Tensor, Tensor | None]  # weight and bias


def is_known(model: PreTrainedModel) -> bool:
    """Tells whether a model does only what its family does: it has no hook, adapter, window or other attention."""
    if type(model) not in KNOWN or model.config._attn_implementation != "sdpa":
        return False
    if {*(getattr(model.config, "layer_types", None) or ["full_attention"])} != {"full_attention"}:
        return False
    if any(type(module) not in (nn.Linear, nn.Embedding, *NORMS) for module in leaves(model)):
        return False
    return not any(is_changed(module) for module in model.modules())


def has_plain_parts(model: Any) -> bool:
    """Tells whether a known model's gates are SiLUs, and its rotations depend on positions alone."""
    return model.config.hidden_act == "silu" and model.model.rotary_emb.rope_type in ROTATIONS


def is_changed(module: nn.Module) -> bool:
    """Tells whether a module does other things than its library wrote, as what moves weights between devices."""
    own = type(module).__module__.partition(".")[0] not in ("torch", "transformers")
    return own or bool(module._forward_hooks or module._forward_pre_hooks) or "forward" in vars(module)


def leaves(model: Any) -> list[nn.Module]:
    """Returns the modules whose weights are used without calling them."""
    found = [model.model.embed_tokens, model.model.norm, model.lm_head]
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        found += [layer.input_layernorm, layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj, mlp.down_proj]
        found += [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
        found += [attention.q_norm, attention.k_norm] if hasattr(attention, "q_norm") else []
    return found


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
