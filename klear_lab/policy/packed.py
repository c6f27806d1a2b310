"""Reads each distinct prefix of a micro-batch once: training's forward pass for short sequences on a CPU.

Sequences are laid out as a tree of their prefixes (prefix_tree.py), and but for attention nothing computes
padding. The first layer makes queries, keys and values of each distinct token once, since a token's don't depend
on what comes before it, and the last layer computes only what predicts a response token.

For its speed alone: `python benchmarks/packed.py` measures it beside the modules, for the same log-probabilities
and gradients but for rounding. On other devices, for longer sequences and larger models, the model does its own
forward pass.

Shapes: N nodes of the tree, U distinct tokens, M nodes that predict a response token, Q distinct pairs of such a
node and the token after it, H hidden size, O what is projected, A attention heads, D head dimension, E = D / 2.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from klear_lab.policy.dense import (
    added,
    has_plain_parts,
    is_known,
    joined,
    modules_of,
    norm_of_heads,
    numbers_of,
    transposed,
)
from klear_lab.policy.micro_batches import Tokenized
from klear_lab.policy.model import Policy
from klear_lab.policy.packed_functions import Attended, Gated, Scaled
from klear_lab.policy.prefix_tree import PrefixTree, prefix_tree

LONGEST = 192  # tokens of a sequence; longer ones have more attention, which the fused kernel does better
LARGEST = 2**24  # numbers of a model, whose weights a pass copies; larger ones gain little


def reads_packed(policy: Policy, longest: int) -> bool:
    """Tells whether the policy reads sequences of at most `longest` tokens packed."""
    is_plain = policy.device.type == "cpu" and policy.autocast_dtype is None
    return is_plain and longest <= LONGEST and can_be_packed(policy.model)


def can_be_packed(model: Any) -> bool:
    """Tells whether `packed_hidden_states` does what the model does."""
    return (
        is_known(model)
        and model.dtype in (torch.float32, torch.float64)
        and numbers_of(model) <= LARGEST
        and has_plain_parts(model)
        and not any(vars(module).get("gradient_checkpointing") for module in modules_of(model))
        and not (model.training and model.model.layers[0].self_attn.attention_dropout)
    )


def tree_of(model: Any, sequences: Sequence[Tokenized]) -> PrefixTree:
    """Returns the tree of sequences as the model reads them."""
    config = model.config
    return prefix_tree(sequences, config.num_attention_heads, config.num_key_value_heads, model.dtype)


def packed_hidden_states(model: Any, tree: PrefixTree) -> Tensor:
    """Returns what the model gives to its head for each distinct pair of a node and the next token, (Q, H)."""
    layers, norm = model.model.layers, model.model.norm
    token_UH = model.model.embed_tokens(tree.token_U)
    hidden_NH = F.embedding(tree.kind_N, token_UH)
    turn_N1E = turns(model, hidden_NH, tree.position_N)
    query_key_NAD, value_NAD = (spread(x, tree.kind_N) for x in queries_keys_values(layers[0], token_UH))
    for layer, following in pairwise(layers):
        turned_NAD = turned(query_key_NAD, turn_N1E)
        read_NO = Attended.apply(turned_NAD, value_NAD, layer.self_attn.scaling, tree.rectangles)
        hidden_NH = after_attention(layer, hidden_NH, read_NO)
        query_key_NAD, value_NAD = queries_keys_values(following, hidden_NH)
    turned_NAD = turned(query_key_NAD, turn_N1E)
    read_MO = Attended.apply(turned_NAD, value_NAD, layers[-1].self_attn.scaling, tree.last_rectangles)
    hidden_MH = after_attention(layers[-1], F.embedding(tree.predicts_M, hidden_NH), read_MO)
    return F.embedding(tree.node_Q, norm.weight * Scaled.apply(hidden_MH, norm.variance_epsilon))


def turns(model: Any, hidden_NH: Tensor, position_N: Tensor) -> Tensor:
    """Returns turn_N1E, by which pairs of numbers are multiplied as complex ones, for tokens at positions."""
    tables = model.model.rotary_emb(hidden_NH, position_N[None])
    cos_NE, sin_NE = (table[0].chunk(2, -1)[0] for table in tables)  # both halves are alike
    return torch.complex(cos_NE, sin_NE)[:, None]


def turned(x_NAD: Tensor, turn_N1E: Tensor) -> Tensor:
    """Turns queries or keys, whose pairs are next to each other."""
    pairs_NAE = torch.view_as_complex(x_NAD.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs_NAE * turn_N1E).flatten(-2)


def spread(x_UAD: Tensor, kind_N: Tensor) -> Tensor:
    """Returns what was made of each distinct token for all tokens, x_NAD; autograd's indexing is slower."""
    return F.embedding(kind_N, x_UAD.flatten(1)).unflatten(1, x_UAD.shape[1:])


def queries_keys_values(layer: Any, hidden_NH: Tensor) -> tuple[Tensor, Tensor]:
    """Returns queries and keys, normed where the model norms them, and values, before positions come in.

    Numbers of queries and keys that are turned together are next to each other, and not half of a head apart:
    attention is the same, and a turn is one operation. A norm's weight is multiplied into the projection after it,
    which is smaller than what is projected. Values have a product of their own, since parts of one tensor are
    slower to work on.
    """
    attention, norm = layer.self_attn, layer.input_layernorm
    size = attention.head_dim
    input_NH = Scaled.apply(hidden_NH, norm.variance_epsilon)
    weight_OH, bias_O = joined(norm, attention.q_proj, attention.k_proj)
    bias_O = None if bias_O is None else in_pairs(bias_O, size)
    query_key_NAD = F.linear(input_NH, in_pairs(weight_OH, size), bias_O).unflatten(1, (-1, size))
    value_NAD = F.linear(input_NH, *joined(norm, attention.v_proj)).unflatten(1, (-1, size))
    if (weight_AD := norm_of_heads(attention)) is not None:
        weight_AD = in_pairs(weight_AD.flatten(), size).view_as(weight_AD)
        query_key_NAD = Scaled.apply(query_key_NAD, attention.q_norm.variance_epsilon) * weight_AD
    return query_key_NAD, value_NAD


def in_pairs(x: Tensor, size: int) -> Tensor:
    """Orders rows, of heads with a `size`, so that i and size / 2 + i of each head become neighbours."""
    return x.unflatten(0, (-1, 2, size // 2)).transpose(1, 2).flatten(0, 2)


def after_attention(layer: Any, hidden_NH: Tensor, read_NO: Tensor) -> Tensor:
    """Returns a layer's output, of its input and what attention read."""
    mlp, norm = layer.mlp, layer.post_attention_layernorm
    hidden_NH = added(hidden_NH, read_NO, *transposed(layer.self_attn.o_proj))
    input_NH = Scaled.apply(hidden_NH, norm.variance_epsilon)
    gate_NI, up_NI = (F.linear(input_NH, *joined(norm, part)) for part in (mlp.gate_proj, mlp.up_proj))
    return added(hidden_NH, Gated.apply(gate_NI, up_NI), *transposed(mlp.down_proj))
