"""Reads each distinct token of a micro-batch once: training's forward pass for short sequences on a CPU.

    tokens:     | prompt A | response A1 | response A2 | prompt B | response B1 | ...
    attention:  | prompt A | response A1 | padding |      (padded, in two rectangles: the shorter ones, the longer)
                | prompt A | response A2 |         |

A prompt is read once for all its responses, and but for attention nothing computes padding. For its speed alone:
with 32 tokens a sequence, a pass of the tiny model forward and backward takes half of what its modules take, and
with 64 three quarters (`python benchmarks/packed.py`), for the same log-probabilities and gradients but for
rounding. On other devices, for longer sequences and larger models, the model does its own forward pass.

Shapes: N distinct tokens, P response tokens, B sequences, T positions, H hidden size, I intermediate size,
A attention heads, D head dimension, R rows of a token and head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from klear_lab.policy.dense import added, has_plain_parts, is_known, joined, norm_of_heads, transposed
from klear_lab.policy.micro_batches import Tokenized
from klear_lab.policy.model import Policy
from klear_lab.policy.packed_functions import Attended, Gated, Rectangle, Rotated, Scaled

LONGEST = 192  # tokens of a sequence; longer ones have more attention, which the fused kernel does better
LARGEST = 2**24  # numbers of a model, whose weights a pass copies; larger ones gain little


@dataclass(frozen=True)
class Packed:
    """Holds a micro-batch: its distinct tokens, and after which of them each response token comes, in order."""

    token_N: Tensor
    position_N: Tensor
    predicts_P: Tensor
    rectangles: list[Rectangle]


@dataclass(frozen=True)
class Span:
    """Says where a sequence's tokens are, all but its last, which predicts none; `is_first` of its prompt."""

    prompt: int
    prompt_tokens: int
    response: int
    tokens: int
    is_first: bool


def reads_packed(policy: Policy, longest: int) -> bool:
    """Tells whether the policy reads sequences of at most `longest` tokens packed."""
    is_plain = policy.device.type == "cpu" and policy.autocast_dtype is None
    return is_plain and longest <= LONGEST and can_be_packed(policy.model)


def can_be_packed(model: Any) -> bool:
    """Tells whether `packed_hidden_states` does what the model does."""
    return (
        is_known(model)
        and model.num_parameters() <= LARGEST
        and has_plain_parts(model)
        and not any(vars(module).get("gradient_checkpointing") for module in model.modules())
        and not (model.training and model.model.layers[0].self_attn.attention_dropout)
    )


def packed_hidden_states(model: Any, sequences: Sequence[Tokenized]) -> Tensor:
    """Returns what the model gives to its head for each response token, (P, H), with gradient."""
    heads, key_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    packed = pack(sequences, heads, key_heads)
    hidden_NH = model.model.embed_tokens(packed.token_N)
    cos_N1D, sin_N1D = (table[0, :, None] for table in model.model.rotary_emb(hidden_NH, packed.position_N[None]))
    sin_N1E, _ = sin_N1D.chunk(2, -1)  # both halves are alike
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        query_key_NAD, value_NAD = queries_keys_values(layer, hidden_NH, (heads + key_heads, key_heads))
        turned_NAD = Rotated.apply(query_key_NAD, cos_N1D, sin_N1E)
        read = Attended.apply(turned_NAD, value_NAD, heads, attention.scaling, packed.rectangles)
        hidden_NH = added(hidden_NH, read, *transposed(attention.o_proj))
        norm = layer.post_attention_layernorm
        input_NH = Scaled.apply(hidden_NH, norm.variance_epsilon)
        gate_NI, up_NI = (F.linear(input_NH, *joined(norm, part)) for part in (mlp.gate_proj, mlp.up_proj))
        hidden_NH = added(hidden_NH, Gated.apply(gate_NI, up_NI), *transposed(mlp.down_proj))
    norm = model.model.norm
    return norm.weight * Scaled.apply(hidden_NH.index_select(0, packed.predicts_P), norm.variance_epsilon)


def queries_keys_values(layer: Any, hidden_NH: Tensor, heads: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Returns queries and keys, normed where the model norms them, and values, by these numbers of `heads`.

    A norm's weight is multiplied into the projection after it, which is smaller than what is projected.
    """
    attention, norm = layer.self_attn, layer.input_layernorm
    weight, bias = joined(norm, attention.q_proj, attention.k_proj, attention.v_proj)
    projected = F.linear(Scaled.apply(hidden_NH, norm.variance_epsilon), weight, bias)
    query_key_NAD, value_NAD = projected.unflatten(1, (-1, attention.head_dim)).split(heads, 1)
    if (weight_AD := norm_of_heads(attention)) is None:
        return query_key_NAD, value_NAD
    return Scaled.apply(query_key_NAD, attention.q_norm.variance_epsilon) * weight_AD, value_NAD


def pack(sequences: Sequence[Tokenized], heads: int, key_heads: int) -> Packed:
    """Lays out the distinct tokens of sequences, and the rectangles in which `heads` query heads attend."""
    token_ids: list[int] = []
    positions: list[int] = []
    predicts: list[int] = []
    spans: list[Span] = []
    known: dict[tuple[int, ...], int] = {}
    for sequence in sequences:
        prompt, response = tuple(sequence.prompt_ids), sequence.response_ids[:-1]
        is_first = prompt not in known
        if is_first:
            known[prompt] = len(token_ids)
            token_ids += prompt
            positions += range(len(prompt))
        start, tokens = len(token_ids), len(prompt) + len(response)
        token_ids += response
        positions += range(len(prompt), tokens)
        predicts += [known[prompt] + len(prompt) - 1, *range(start, start + len(response))]
        spans.append(Span(known[prompt], len(prompt), start, tokens, is_first))
    rectangles = [rectangle(part, heads, key_heads) for part in shorter_and_longer(spans)]
    return Packed(as_tensor(token_ids), as_tensor(positions), as_tensor(predicts), rectangles)


def shorter_and_longer(spans: Sequence[Span]) -> list[list[Span]]:
    """Cuts sequences into at most two parts, of those that are shorter and longer, with the smallest area."""
    ordered = sorted(spans, key=lambda span: span.tokens)
    count, longest = len(ordered), ordered[-1].tokens
    cut = min(range(count), key=lambda n: n * ordered[n - 1].tokens ** 2 + (count - n) * longest**2)
    return [part for part in (ordered[:cut], ordered[cut:]) if part]


def rectangle(spans: Sequence[Span], heads: int, key_heads: int) -> Rectangle:
    """Says where attention finds the tokens of sequences; see `Rectangle`."""
    numbers = np.array([(s.prompt, s.prompt_tokens, s.response, s.tokens, s.is_first) for s in spans])
    prompt_B1, prompt_tokens_B1, response_B1, tokens_B1, is_first_B1 = numbers.T[:, :, None]
    position_T = np.arange(tokens_B1.max())
    is_token_BT, is_prompt_BT = position_T < tokens_B1, position_T < prompt_tokens_B1
    start_BT = np.where(is_prompt_BT, prompt_B1, response_B1 - prompt_tokens_B1)
    token_B1T = ((start_BT + position_T) * is_token_BT)[:, None]
    is_own_BT = is_token_BT & (~is_prompt_BT | (is_first_B1 == 1))
    head_A1 = np.arange(heads)[:, None]
    key_head_A1 = head_A1 // (heads // key_heads)
    query_BAT = token_B1T * (heads + key_heads) + head_A1
    key_BAT = token_B1T * (heads + key_heads) + heads + key_head_A1
    (place_R,) = np.broadcast_to(is_own_BT[:, None], query_BAT.shape).ravel().nonzero()
    return Rectangle(
        len(position_T),
        as_tensor(np.concatenate((query_BAT.ravel(), key_BAT.ravel()))),
        as_tensor((token_B1T * key_heads + key_head_A1).ravel()),
        as_tensor(place_R),
        as_tensor((token_B1T * heads + head_A1).ravel()[place_R]),
    )


def as_tensor(numbers: Any) -> Tensor:
    """Returns integers as a tensor; `torch.tensor` takes several times as long."""
    return torch.from_numpy(np.asarray(numbers, dtype=np.int64))
