"""Packed reading: the modules' log-probabilities and gradients, only where it may be."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from klear_lab.config import ModelConfig
from klear_lab.policy import log_probs, packed
from klear_lab.policy.dense import numbers_of
from klear_lab.policy.log_probs import cut_for, response_log_probs
from klear_lab.policy.model import Policy, build_tiny
from klear_lab.policy.packed import LONGEST, can_be_packed, reads_packed, turned
from klear_lab.policy.packed_functions import Attended, Gated, Scaled
from klear_lab.policy.prefix_tree import prefix_tree
from klear_lab.sft import Example
from support.dense_models import HEADS, KNOWN, SIZES, made
from support.prefixes import nodes

BATCH = [
    Example([5, 6, 7], [8, 9, 10, 11, 2]),
    Example([12], [13, 2]),
    Example([5, 6, 7], [9]),
    Example([5, 6], [7, 8, 2]),  # its prompt begins as another
    Example([3, 4, 5, 6, 7, 8], [9, 10, 2] * 9),
    Example([12], [13, 2]),  # twice the same
    Example([4, 0], [0, 7, 2]),  # with the token for padding, whose embedding learns nothing
    Example([5, 6, 7], [8, 9, 10, 11, 2, 3, 3, 3]),
    Example([5, 6, 7, 8], [9, 10, 11, 2]),  # its prompt ends where another's response goes on
]


def policy_of(model, dtype=None):
    return Policy(model, SimpleNamespace(pad_token_id=0), torch.device("cpu"), dtype)


def found_for(policy, sequences):
    """Log-probabilities, entropies and all gradients, each token with a weight of its own."""
    policy.model.zero_grad()
    log_prob_N, entropy_N = response_log_probs(policy, sequences, 0.7)
    (log_prob_N * torch.linspace(-1, 2, len(log_prob_N))).sum().backward()
    return log_prob_N.detach(), entropy_N, {name: p.grad.clone() for name, p in policy.model.named_parameters()}


def by_modules(policy, sequences):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_probs, "reads_packed", lambda policy, longest: False)
        return found_for(policy, sequences)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KNOWN)
def test_log_probs_and_gradients_are_those_of_the_modules(name, dtype):
    policy = policy_of(made(KNOWN[name]).to(dtype))
    assert reads_packed(policy, LONGEST)
    ours, theirs = found_for(policy, BATCH), by_modules(policy, BATCH)
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-4, atol=2e-5)
    for weight, gradient in theirs[2].items():
        torch.testing.assert_close(ours[2][weight], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))
    assert not torch.equal(ours[0], theirs[0])  # the two ways did run


tokens = st.integers(0, 30)  # the token for padding too, whose embedding learns nothing
prompts = st.lists(st.lists(tokens, min_size=1, max_size=9), min_size=1, max_size=4)
responses = st.lists(
    st.tuples(st.integers(0, 3), st.lists(tokens, min_size=1, max_size=40)), min_size=1, max_size=12
)
TINY = policy_of(build_tiny(ModelConfig(name="tiny", hidden_size=16), torch.device("cpu"), 0).model)


@settings(deadline=None)
@given(prompts, responses)
def test_any_batch_has_the_modules_log_probs_and_gradients(prompts, responses):
    batch = [Example(prompts[number % len(prompts)], response) for number, response in responses]
    ours, theirs = found_for(TINY, batch), by_modules(TINY, batch)
    torch.testing.assert_close(ours[:2], theirs[:2], rtol=1e-4, atol=1e-5)
    norms = [torch.nn.utils.get_total_norm([*gradients.values()]) for *_, gradients in (ours, theirs)]
    torch.testing.assert_close(*norms, rtol=1e-3, atol=1e-5)


def test_other_sequences_change_no_more_than_rounding_and_the_same_pass_nothing():
    policy = policy_of(made(KNOWN["qwen3"]))
    (whole, *_), (alone, *_) = found_for(policy, BATCH), found_for(policy, BATCH[4:5])
    start = sum(len(e.response_ids) for e in BATCH[:4])
    torch.testing.assert_close(whole[start : start + len(alone)], alone)
    with torch.no_grad():  # as old log-probabilities are made: the first ratio must be exactly 1
        assert torch.equal(response_log_probs(policy, BATCH, 0.7)[0], whole)
    again = found_for(policy, BATCH)
    assert all(torch.equal(again[2][name], gradient) for name, gradient in found_for(policy, BATCH)[2].items())


def frozen(model):
    model.model.layers[0].requires_grad_(False)


def test_frozen_weights_get_no_gradient_and_others_the_same():
    whole, part = (policy_of(made(KNOWN["llama"])) for _ in range(2))
    frozen(part.model)
    response_log_probs(part, BATCH, 0.7)[0].sum().backward()
    response_log_probs(whole, BATCH, 0.7)[0].sum().backward()
    for (name, own), other in zip(part.model.named_parameters(), whole.model.parameters(), strict=True):
        if name.startswith("model.layers.0."):
            assert own.grad is None
        else:
            torch.testing.assert_close(own.grad, other.grad)


def checkpointing(model):
    model.activation_checkpointing_enable({"use_reentrant": False})
    return model.train()


def dropped_out(model):
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.1
    return model.train()


def with_adapters(model):
    return get_peft_model(model, LoraConfig(target_modules="all-linear")).get_base_model()


def hooked(model):
    model.model.layers[1].register_forward_hook(lambda module, given, output: None)
    return model


def with_another_gate(model):
    model.model.layers[2].mlp.act_fn = nn.GELU()
    return model


def with_another_module(model):
    model.model.layers[0].mlp.up_proj = nn.Sequential(model.model.layers[0].mlp.up_proj)
    return model


CHANGES = [checkpointing, dropped_out, with_adapters, hooked, with_another_gate, with_another_module]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_model_that_does_more_reads_for_itself(change):
    assert can_be_packed(made(KNOWN["qwen3"]))
    assert not can_be_packed(change(made(KNOWN["qwen3"])))


GROWING = dict(rope_type="dynamic", rope_theta=1e4, factor=2.0)


@pytest.mark.parametrize(
    "config",
    [
        transformers.MistralConfig(**SIZES, **HEADS),
        transformers.Qwen3Config(**SIZES, **HEADS, head_dim=8, hidden_act="gelu"),
        transformers.LlamaConfig(**SIZES, **HEADS, rope_parameters=GROWING),
        transformers.Qwen2Config(**SIZES, **HEADS, sliding_window=7, use_sliding_window=True, max_window_layers=1),
    ],
    ids=["another family", "another gate", "rotations by length", "a window"],
)
def test_a_model_of_another_kind_reads_for_itself(config):
    assert not can_be_packed(made(config))


def test_long_sequences_half_precision_and_large_models_are_read_by_the_model(monkeypatch):
    model = made(KNOWN["qwen3"])
    assert model.num_parameters() == numbers_of(model)
    assert reads_packed(policy_of(model), LONGEST) and not reads_packed(policy_of(model), LONGEST + 1)
    assert not reads_packed(policy_of(model, torch.bfloat16), 2)
    assert not reads_packed(Policy(model, None, torch.device("meta"), None), 2)
    monkeypatch.setattr(packed, "LARGEST", model.num_parameters() - 1)
    assert not reads_packed(policy_of(model), 2)


def test_packed_sequences_are_cut_by_the_limits_alone_and_padded_ones_by_their_lengths():
    short, long = Example([5], [6] * 9), Example([5], [6] * (LONGEST - 1))
    policy = policy_of(made(KNOWN["qwen3"]))
    assert [len(part) for part in cut_for(policy, [short] * 8 + [long], 32)] == [9]
    assert [len(part) for part in cut_for(policy, [short] * 8 + [long], 6)] == [6, 3]
    longer = Example([5], [6] * LONGEST)
    assert [len(part) for part in cut_for(policy, [short] * 8 + [longer], 32)] == [1, 8]


def plain_scaled(x):
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt()


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def test_functions_have_the_values_and_gradients_of_their_formulas():
    x, gate, up = (random(5, 3, 8).requires_grad_() for _ in range(3))
    torch.testing.assert_close(Scaled.apply(x, 1e-3), plain_scaled(x))
    torch.testing.assert_close(Gated.apply(gate, up), F.silu(gate) * up)
    assert torch.autograd.gradcheck(lambda x: Scaled.apply(x, 1e-3), x)
    assert torch.autograd.gradcheck(Gated.apply, (gate, up))


def test_a_turn_is_that_of_the_family_for_pairs_that_are_neighbours():
    x_NAD, angle_N1E = random(5, 3, 8), random(5, 1, 4)
    apart_NAD = x_NAD.unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2)
    cos, sin = (torch.cat([one] * 2, -1) for one in (angle_N1E.cos(), angle_N1E.sin()))
    (theirs_NAD, _) = apply_rotary_pos_emb(apart_NAD, apart_NAD, cos, sin, unsqueeze_dim=0)
    ours_NAD = turned(x_NAD, torch.polar(torch.ones_like(angle_N1E), angle_N1E))
    torch.testing.assert_close(ours_NAD.unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2), theirs_NAD[0])


@pytest.mark.parametrize(("heads", "key_heads"), [(2, 2), (4, 2), (3, 1)])
def test_attention_is_that_of_each_sequence_and_its_gradient_sums_over_shared_prefixes(heads, key_heads):
    tree = prefix_tree(BATCH, heads, key_heads, torch.float64)
    node = nodes(BATCH)
    query_key, value = random(len(node), heads + key_heads, 4), random(len(node), key_heads, 4)
    got = Attended.apply(query_key, value, 0.5, tree.rectangles)
    for prefix, number in node.items():
        path = [node[prefix[: end + 1]] for end in range(len(prefix))]
        query, key = query_key[[number], :heads].transpose(0, 1), query_key[path, heads:].transpose(0, 1)
        read = F.scaled_dot_product_attention(
            query[None], key[None], value[path].transpose(0, 1)[None], scale=0.5, enable_gqa=True
        )
        torch.testing.assert_close(got[number], read[0].flatten())
    last = Attended.apply(query_key, value, 0.5, tree.last_rectangles)
    torch.testing.assert_close(last, got[tree.predicts_M])
    inputs = (query_key.requires_grad_(), value.requires_grad_())
    assert torch.autograd.gradcheck(Attended.apply, (*inputs, 0.5, tree.rectangles))
    assert torch.autograd.gradcheck(Attended.apply, (*inputs, 0.5, tree.last_rectangles))
