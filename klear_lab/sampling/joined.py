"""The decoding step of small models on a CPU, with weights that are joined once for a rollout.

For its speed alone, as sampling/one_token.py: there are fewer operations, and as a script of TorchScript they have
no Python between them, with which sampling takes 0.8 to 0.9 of its time. TorchScript is deprecated, but
torch.compile takes longer for this step than a run of the tiny model gains.

Shapes: B sequences, H hidden size, O the other side of projections, A attention heads (of queries and keys, and
with those of values), D head dimension, T columns of the past, S steps, V vocabulary.
"""

import warnings
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from klear_lab.policy.dense import Projection, added, has_plain_parts, joined, norm_of_heads, transposed
from klear_lab.sampling.cache import SlotCache, Views, views_of
from klear_lab.sampling.draws import log_prob_of, pair_hash, race, token_hashes

SMALL = 2**22  # numbers of a model whose weights may be held twice


class JoinedLayer(NamedTuple):
    """Holds a layer's weights: joined where they multiply one thing, with the norm's before them in them."""

    query_key_value: Projection
    heads_AD: Tensor | None
    output: Projection
    gate_up: Projection
    down: Projection
    scaling: float
    epsilon: float


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
    epsilon: float
    head: Projection


def can_be_joined(model: Any) -> bool:
    """Tells whether a known model may be read with joined weights."""
    is_plain = model.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return is_plain and model.num_parameters() <= SMALL and has_plain_parts(model)


class JoinedStep:
    """The decoding step of a model with joined weights."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Joins the weights of now."""
        self.weights = joined_model(model)

    def __call__(self, token_B: Tensor, position_B: Tensor, cache: SlotCache) -> Tensor:
        """Returns the next token's logits_BV, as each `one_token.Step`."""
        views = [room.views() for room in cache.rooms]
        logits_BV: Tensor = READ_ONE(self.weights, token_B, position_B, cache.attention_mask, views)
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
        keys, values = ([room.room[kind] for room in cache.rooms] for kind in (0, 1))
        past = keys, values, cache.mask_BT, cache.columns.first, cache.columns.end
        drawn: tuple[Tensor, Tensor] = DRAW_SEVERAL(
            self.weights, token_B, position_BS, seed_B, drawn_B, hash_V, *past
        )
        cache.columns.end += position_BS.shape[1]
        return drawn


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
        body.norm.variance_epsilon,
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


def product(x: Tensor, projection: Projection) -> Tensor:
    """Returns a projection of x, whose weight is transposed."""
    weight, bias = projection
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def scaled(x: Tensor, epsilon: float) -> Tensor:
    """Returns an RMSNorm without its weight."""
    return F.rms_norm(x, [x.size(-1)], None, epsilon)


def read_one_joined(
    model: JoinedModel, token_B: Tensor, position_B: Tensor, mask_BT: Tensor, views: list[Views]
) -> Tensor:
    """Does the step as `one_token.read_one` does, but for rounding."""
    rows, size, queries, turning = len(token_B), len(model.frequency_D), model.queries, model.turning
    hidden_BH = F.embedding(token_B, model.embedding_VH)
    angle_B1D = (position_B[:, None] * model.frequency_D)[:, None]
    cos_B1D = (angle_B1D.cos() * model.stretch).to(hidden_BH.dtype)
    sin_B1D = (angle_B1D.sin() * model.stretch).to(hidden_BH.dtype)
    closed_BT = torch.zeros_like(mask_BT, dtype=hidden_BH.dtype).masked_fill_(~mask_BT, -torch.inf)
    for layer, (new_key_BAD, new_value_BAD, key_BATD, value_BATD) in zip(model.layers, views):  # noqa: B905
        all_BA1D = product(scaled(hidden_BH, layer.epsilon), layer.query_key_value).view(rows, -1, 1, size)
        query_key_BAD, heads_AD = all_BA1D[:, :turning, 0], layer.heads_AD
        if heads_AD is not None:
            query_key_BAD = scaled(query_key_BAD, layer.epsilon).mul_(heads_AD)
        turned_BAD = (query_key_BAD * cos_B1D).addcmul_(query_key_BAD.roll(size // 2, -1), sin_B1D)
        new_key_BAD.copy_(turned_BAD[:, queries:])
        new_value_BAD.copy_(all_BA1D[:, turning:, 0])
        read_BA1D = F.scaled_dot_product_attention(
            turned_BAD[:, :queries, None],
            key_BATD,
            value_BATD,
            attn_mask=closed_BT[:, None, None],
            scale=layer.scaling,
            enable_gqa=turning < 2 * queries,
        )
        hidden_BH = added(hidden_BH, read_BA1D.flatten(1), layer.output[0], layer.output[1])
        gate_BI, up_BI = product(scaled(hidden_BH, layer.epsilon), layer.gate_up).chunk(2, -1)
        hidden_BH = added(hidden_BH, F.silu(gate_BI).mul_(up_BI), layer.down[0], layer.down[1])
    return product(scaled(hidden_BH, model.epsilon), model.head)


def draw_several(
    model: JoinedModel,
    token_B: Tensor,
    position_BS: Tensor,
    seed_B: Tensor,
    drawn_B: Tensor,
    token_hash_V: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    mask_BT: Tensor,
    first: int,
    end: int,
) -> tuple[Tensor, Tensor]:
    """Does what `JoinedStep.draw_several` does; `keys` and `values` are those of each layer's cache."""
    tokens: list[Tensor] = []
    log_probs: list[Tensor] = []
    for step, position_B in enumerate(position_BS.unbind(1)):
        column = end + step
        views = [views_of(*both, len(token_B), first, column) for both in zip(keys, values)]  # noqa: B905
        logits_BV = read_one_joined(model, token_B, position_B, mask_BT[:, first : column + 1], views)
        hash_BV = pair_hash(seed_B, drawn_B + step, token_hash_V)
        probability_BV, _, token_B1 = race(logits_BV.float(), hash_BV)
        token_B = token_B1[:, 0]
        tokens.append(token_B)
        log_probs.append(log_prob_of(token_B1, probability_BV))
    return torch.stack(tokens, 1), torch.stack(log_probs, 1)


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    READ_ONE, DRAW_SEVERAL = torch.jit.script(read_one_joined), torch.jit.script(draw_several)
