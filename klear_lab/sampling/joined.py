"""The decoding step of small models on a CPU, with weights that are joined once for a rollout.

For its speed alone, as sampling/one_token.py: there are fewer operations, and as a script of TorchScript they have
no Python between them, with which sampling takes 0.8 to 0.9 of its time. TorchScript is deprecated, but
torch.compile takes longer for this step than a run of the tiny model gains.

Shapes: B sequences, R rows of the cache, H hidden size, I intermediate size, O the other side of projections,
A attention heads (of queries and keys, and with those of values), D head dimension, T columns of the past,
S steps, V vocabulary.
"""

import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from klear_lab.policy.dense import Projection, has_plain_parts, joined, norm_of_heads, numbers_of, transposed
from klear_lab.sampling.cache import SlotCache
from klear_lab.sampling.draws import log_prob_of, pair_hash, race, token_hashes
from klear_lab.sampling.past import Past, part_rows, seen_columns, views_of

SMALL = 2**22  # numbers of a model whose weights may be held twice


class JoinedLayer(NamedTuple):
    """Holds a layer's weights: joined where they multiply one thing, with the norm's before them in them.

    `floor` and `head_floor` are what `unit` adds to the lengths of hidden states, and of queries and keys.
    """

    query_key_value: Projection
    heads_AD: Tensor | None
    output: Projection
    gate_up: Projection
    down: Projection
    scaling: float
    floor: Tensor
    head_floor: Tensor


class JoinedModel(NamedTuple):
    """Holds what a step reads with. Of the heads `queries` are the queries', `turning` theirs and the keys'.

    `frequency_D` are the rotations' angles for a position, negative in the first half, and `stretch` is their
    factor.
    """

    embedding_VH: Tensor
    frequency_D: Tensor
    stretch: float
    queries: int
    turning: int
    layers: list[JoinedLayer]
    floor: Tensor
    head: Projection


def can_be_joined(model: Any) -> bool:
    """Tells whether a known model may be read with joined weights."""
    is_plain = model.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return is_plain and numbers_of(model) <= SMALL and has_plain_parts(model)


class JoinedStep:
    """The decoding step of a model with joined weights."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Joins the weights of now."""
        self.weights = joined_model(model)

    def __call__(self, token_B: Tensor, position_B: Tensor, cache: SlotCache) -> Tensor:
        """Returns the next token's logits_BV, as each `one_token.Step`; sequences that share a row may part."""
        logits_RV, row_B, start_R = READ_ONE(self.weights, token_B, position_B, cache.past)
        cache.part(row_B, start_R)
        logits_BV: Tensor = logits_RV[row_B]
        return logits_BV

    def draw_several(
        self, token_B: Tensor, position_BS: Tensor, seed_B: Tensor, drawn_B: Tensor, cache: SlotCache
    ) -> tuple[Tensor, Tensor]:
        """Takes several steps, and draws a token at temperature 1 after each; moves the cache's clock on.

        Sequences have drawn `drawn_B` tokens, the last of them `token_B`. Returns the next ones and their
        log-probabilities, both (B, S), as `draws.draw_tokens` would draw them.
        """
        head_HV, _ = self.weights.head
        hash_V = token_hashes(head_HV.shape[1], token_B.device)
        token_BS, log_prob_BS, row_B, start_R = DRAW_SEVERAL(
            self.weights, token_B, position_BS, seed_B, drawn_B, hash_V, cache.past
        )
        cache.part(row_B, start_R)
        cache.columns.end += position_BS.shape[1]
        return token_BS, log_prob_BS


def joined_model(model: Any) -> JoinedModel:
    """Joins the weights of a model."""
    heads, body = model.config.num_attention_heads, model.model
    frequency_E = body.rotary_emb.inv_freq
    return JoinedModel(
        body.embed_tokens.weight,
        torch.cat((-frequency_E, frequency_E)),
        float(body.rotary_emb.attention_scaling),
        heads,
        heads + model.config.num_key_value_heads,
        [joined_layer(layer) for layer in body.layers],
        floor_of(len(body.norm.weight), body.norm.variance_epsilon),
        joined_transposed(body.norm, model.lm_head),
    )


def joined_layer(layer: Any) -> JoinedLayer:
    """Joins the weights of a layer."""
    attention, mlp = layer.self_attn, layer.mlp
    epsilon, heads_AD = layer.input_layernorm.variance_epsilon, norm_of_heads(attention)
    return JoinedLayer(
        joined_transposed(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj),
        None if heads_AD is None else heads_AD * attention.head_dim**0.5,
        transposed(attention.o_proj),
        joined_transposed(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj),
        transposed(mlp.down_proj),
        attention.scaling,
        floor_of(len(layer.input_layernorm.weight), epsilon),
        floor_of(attention.head_dim, epsilon),
    )


def joined_transposed(norm: Any, *projections: nn.Linear) -> Projection:
    """Returns what `dense.joined` does for an input of length 1, transposed once for all steps."""
    weight, bias = joined(norm, *projections)
    return (weight * weight.shape[1] ** 0.5).t(), bias


def floor_of(size: int, epsilon: float) -> Tensor:
    """Returns what `unit` adds to a length where a norm adds epsilon to the mean square of `size` numbers."""
    return torch.tensor((size * epsilon) ** 0.5)


def product(x: Tensor, projection: Projection) -> Tensor:
    """Returns a projection of x, whose weight is transposed."""
    weight, bias = projection
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def add(hidden_RH: Tensor, x: Tensor, projection: Projection) -> None:
    """Adds a projection of x, whose weight is transposed, to hidden states.

    A script makes two operations of `addmm`, as `dense.added` calls it, and leaves this one.
    """
    weight, bias = projection
    hidden_RH.addmm_(x, weight)
    if bias is not None:
        hidden_RH.add_(bias)


def unit(x: Tensor, floor: Tensor) -> Tensor:
    """Returns x with a length of 1, or less where its own is about `floor`: an RMSNorm, but for a factor."""
    return x / torch.hypot(torch.linalg.vector_norm(x, 2.0, [-1], True), floor)


def read_one_joined(
    model: JoinedModel, token_B: Tensor, position_B: Tensor, past: Past
) -> tuple[Tensor, Tensor, Tensor]:
    """Does the step as `one_token.read_one` does, but for rounding, once for all sequences of a row.

    Returns logits_RV, and row_B and start_R of then.
    """
    row_B, start_R = part_rows(past, token_B)
    end, rows, size = past.end, len(start_R), len(model.frequency_D)
    queries, turning, key_heads = model.queries, model.turning, model.turning - model.queries
    token_R = torch.empty_like(start_R).scatter_(0, row_B, token_B)
    position_R = torch.empty_like(start_R).scatter_(0, row_B, position_B)
    hidden_RH = F.embedding(token_R, model.embedding_VH)
    angle_R1D = (position_R.unsqueeze(1) * model.frequency_D).unsqueeze(1)
    cos_R1D = (angle_R1D.cos() * model.stretch).to(hidden_RH.dtype)
    sin_R1D = (angle_R1D.sin() * model.stretch).to(hidden_RH.dtype)
    seen_RT = seen_columns(start_R, past.first, end)
    closed_RT = torch.zeros_like(seen_RT, dtype=hidden_RH.dtype).masked_fill_(~seen_RT, -torch.inf)
    closed_R11T = closed_RT.unsqueeze(1).unsqueeze(1)
    for layer, keys, values in zip(model.layers, past.keys, past.values):  # noqa: B905
        new_key_RAD, new_value_RAD, key_RATD, value_RATD = views_of(keys, values, rows, past.first, end)
        all_RAD = product(unit(hidden_RH, layer.floor), layer.query_key_value).view(rows, -1, size)
        query_key_RAD, heads_AD = all_RAD.narrow(1, 0, turning), layer.heads_AD
        if heads_AD is not None:
            query_key_RAD = unit(query_key_RAD, layer.head_floor).mul_(heads_AD)
        turned_RAD = (query_key_RAD * cos_R1D).addcmul_(query_key_RAD.roll(size // 2, -1), sin_R1D)
        new_key_RAD.copy_(turned_RAD.narrow(1, queries, key_heads))
        new_value_RAD.copy_(all_RAD.narrow(1, turning, key_heads))
        read_RA1D = F.scaled_dot_product_attention(
            turned_RAD.narrow(1, 0, queries).unsqueeze(2),
            key_RATD,
            value_RATD,
            attn_mask=closed_R11T,
            scale=layer.scaling,
            enable_gqa=key_heads < queries,
        )
        add(hidden_RH, read_RA1D.flatten(1), layer.output)
        gate_RI, up_RI = product(unit(hidden_RH, layer.floor), layer.gate_up).chunk(2, -1)
        add(hidden_RH, F.silu(gate_RI).mul_(up_RI), layer.down)
    return product(unit(hidden_RH, model.floor), model.head), row_B, start_R


def draw_several(
    model: JoinedModel,
    token_B: Tensor,
    position_BS: Tensor,
    seed_B: Tensor,
    drawn_B: Tensor,
    token_hash_V: Tensor,
    past: Past,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Does what `JoinedStep.draw_several` does; returns row_B and start_R of then, too.

    It returns no `Past`, since for that a script would make a new class each time.
    """
    tokens: list[Tensor] = []
    log_probs: list[Tensor] = []
    for step, position_B in enumerate(position_BS.unbind(1)):
        logits_RV, row_B, start_R = read_one_joined(model, token_B, position_B, past)
        past = Past(row_B, start_R, past.keys, past.values, past.first, past.end + 1)
        probability_BV = logits_RV.float().softmax(-1)[row_B]
        _, token_B1 = race(probability_BV, pair_hash(seed_B, drawn_B + step, token_hash_V))
        token_B = token_B1[:, 0]
        tokens.append(token_B)
        log_probs.append(log_prob_of(token_B1, probability_BV))
    return torch.stack(tokens, 1), torch.stack(log_probs, 1), past.row_B, past.start_R


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    READ_ONE, DRAW_SEVERAL = torch.jit.script(read_one_joined), torch.jit.script(draw_several)
