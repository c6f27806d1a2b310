"""The sampler: against greedy generate and the training forward, in slots of every number, and where it must refuse."""

from dataclasses import dataclass

import pytest
import torch
import transformers

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.policy.codec import make_codec
from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.model import Policy, character_tokenizer, load_policy, silence_dropout
from klear_lab.sampling import transformers as module
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.sampling.types import Request, Sampling
from support.sampled import PROMPTS, flat, requests_for, sample, tokens


def test_greedy_sampling_is_transformers_greedy_generate(policy):
    groups = sample(policy, requests_for(policy, samples=1), temperature=0.0)
    for prompt, (response,) in zip(PROMPTS, groups, strict=True):
        ids = torch.tensor([policy.codec.encode_prompt([{"role": "user", "content": prompt}])])
        want = policy.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )[0, ids.shape[1] :].tolist()
        assert response.token_ids == want


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_the_number_of_slots_never_changes_a_response(policy_32, top_p):
    many = sample(policy_32, max_tokens=50, top_p=top_p)
    for batch_sequences in (1, 2, 5, 7):
        few = sample(policy_32, max_tokens=50, batch_sequences=batch_sequences, top_p=top_p)
        assert tokens(few) == tokens(many), batch_sequences
        for one, other in zip(flat(few), flat(many), strict=True):
            torch.testing.assert_close(one.log_prob_T, other.log_prob_T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("read_every", [1, 3, 16, 64])
def test_how_often_it_reads_never_changes_a_response(policy_32, read_every):
    seen = sample(policy_32, read_every=read_every, max_tokens=40, batch_sequences=5)
    assert tokens(seen) == tokens(sample(policy_32, max_tokens=40))


def test_a_requests_company_and_place_never_change_its_responses(policy_32):
    requests = requests_for(policy_32)
    there = sample(policy_32, requests, max_tokens=30, batch_sequences=4)
    back = sample(policy_32, requests[::-1], max_tokens=30, batch_sequences=4)
    alone = [sample(policy_32, [request], max_tokens=30)[0] for request in requests]
    assert tokens(there) == tokens(back[::-1]) == tokens(alone)


def test_a_longer_limit_only_continues(policy_32):
    short, long = sample(policy_32, max_tokens=9), sample(policy_32, max_tokens=70)
    for one, other in zip(flat(short), flat(long), strict=True):
        assert one.token_ids == other.token_ids[:9]
        assert one.truncated == (len(other.token_ids) > 9)


def test_a_group_may_have_any_number_of_samples_and_requests_may_differ_in_it(policy_32):
    one, two, *_ = requests_for(policy_32, samples=5)
    fewer = Request(two.prompt_ids, two.seeds[1:3])
    whole = sample(policy_32, [one, two], max_tokens=20)
    part = sample(policy_32, [one, fewer], max_tokens=20, batch_sequences=3)
    assert tokens(part) == [tokens(whole)[0], tokens(whole)[1][1:3]]
    assert sample(policy_32, []) == []


def test_the_seeds_decide(policy):
    assert tokens(sample(policy)) == tokens(sample(policy))
    assert tokens(sample(policy, requests_for(policy, name="t"))) != tokens(sample(policy))


def test_responses_end_at_a_stop_token_or_the_limit(policy):
    stop = set(policy.stop_token_ids)
    groups = sample(policy, requests_for(policy, samples=200), max_tokens=40, batch_sequences=300)
    responses = flat(groups)
    assert {r.truncated for r in responses} == {True, False}
    for response in responses:
        assert response.truncated == (response.token_ids[-1] not in stop)
        assert not stop & set(response.token_ids[:-1])
        assert not response.truncated or len(response.token_ids) == 40
        assert len(response.log_prob_T) == len(response.token_ids)


def test_first_tokens_follow_the_policys_probabilities(policy):
    (request,) = requests_for(policy, ["1+2="], samples=20_000)
    wanted = policy.model(input_ids=torch.tensor([request.prompt_ids])).logits[0, -1].softmax(-1)
    groups = sample(policy, [request], max_tokens=1, batch_sequences=20_000)
    found = torch.bincount(torch.tensor([r.token_ids[0] for r in groups[0]]), minlength=len(wanted)) / 20_000
    assert (found - wanted).abs().max() < 4 * (0.25 / 20_000) ** 0.5


def test_prompts_are_read_once_where_their_samples_start_together(policy_32, monkeypatch):
    shapes = []
    forward = policy_32.model.forward
    monkeypatch.setattr(
        policy_32.model, "forward", lambda **given: shapes.append(given["input_ids"].shape) or forward(**given)
    )
    sample(policy_32, requests_for(policy_32, samples=8), samples=8)
    prefills = [shape for shape in shapes if shape[1] > 1]
    assert [shape[0] for shape in prefills] == [4]


def test_prompts_of_many_tokens_are_read_a_few_at_a_time(policy_32, monkeypatch):
    want = tokens(sample(policy_32))
    monkeypatch.setattr(module, "PREFILL_TOKENS", 12)
    assert tokens(sample(policy_32)) == want


def test_nan_logits_raise_and_say_so(policy):
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="logits are NaN at token 0"):
        sample(policy)
    assert policy.model.training


def test_nan_behind_a_sequences_end_raises_nothing_and_harms_no_later_one(policy_32, monkeypatch):
    forward = policy_32.model.forward

    def broken(**given):
        output = forward(**given)
        if given["input_ids"].shape[1] == 1:
            beyond = given["position_ids"][:, 0] >= longest
            output.logits[beyond] = torch.nan
            cache = given["past_key_values"]
            for layer in cache.rooms:
                layer.room[1][: len(beyond), :, cache.columns.end][beyond] = torch.nan
        return output

    requests = requests_for(policy_32, ["1+2="] * 4)
    want = tokens(sample(policy_32, requests, max_tokens=6))
    longest = len(requests[0].prompt_ids) + 5  # the position of a last token, which only junk follows
    monkeypatch.setattr(policy_32.model, "forward", broken)
    assert tokens(sample(policy_32, requests, read_every=4, max_tokens=6, batch_sequences=3)) == want


def test_sleep_frees_the_cache_and_the_next_sample_is_the_same(policy_32):
    sampler, settings = TransformersSampler(policy_32), Sampling(3, 12, 1.0, 1.0, 4)
    sampler.load(lambda: iter(()), version=1)
    first = sampler.sample(requests_for(policy_32), settings)
    assert sampler.cache is not None
    again = sampler.sample(requests_for(policy_32), settings)
    sampler.sleep()
    assert sampler.cache is None
    assert tokens(first) == tokens(again) == tokens(sampler.sample(requests_for(policy_32), settings))


def test_under_autocast_keys_are_kept_in_its_precision():
    config = ModelConfig(name="tiny", hidden_size=16, layers=2, precision="bfloat16")
    policy = load_policy(config, torch.device("cpu"), seed=0)
    sampler = TransformersSampler(policy)
    groups = sampler.sample(requests_for(policy), Sampling(3, 20, 1.0, 1.0, 5))
    assert {room.dtype for layer in sampler.cache.rooms for room in layer.room} == {torch.bfloat16}
    assert worst_difference(policy, requests_for(policy), groups) < 0.05


@dataclass
class Sequence:
    prompt_ids: list[int]
    response_ids: list[int]


def worst_difference(policy, requests, groups, temperature=1.0):
    """The largest distance between the sampler's log-probabilities and those of the training forward."""
    worst = 0.0
    for request, group in zip(requests, groups, strict=True):
        for response in group:
            assert response.log_prob_T.dtype == torch.float32
            sequence = Sequence(request.prompt_ids, response.token_ids)
            log_prob_N, _ = response_log_probs(policy, [sequence], temperature)
            worst = max(worst, (log_prob_N.detach() - response.log_prob_T).abs().max().item())
    return worst


SIZES = dict(vocab_size=107, pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=0.2)
SIZES |= dict(hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4)
SIZES |= dict(num_key_value_heads=2, max_position_embeddings=64)
WINDOW = dict(sliding_window=7)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
FAMILIES = {
    "qwen3": transformers.Qwen3Config(**SIZES, head_dim=8),
    "qwen2": transformers.Qwen2Config(**SIZES),
    "qwen2, some layers with a window": transformers.Qwen2Config(
        **SIZES, **WINDOW, use_sliding_window=True, max_window_layers=2
    ),
    "llama": transformers.LlamaConfig(**SIZES),
    "mistral": transformers.MistralConfig(**SIZES, **WINDOW),
    "gemma2": transformers.Gemma2Config(**SIZES, **WINDOW, head_dim=8, query_pre_attn_scalar=8),
    "gemma3": transformers.Gemma3TextConfig(**SIZES, **WINDOW, head_dim=8, query_pre_attn_scalar=8),
    "phi": transformers.PhiConfig(**SIZES),
    "phi3": transformers.Phi3Config(**SIZES, **WINDOW),
    "gpt2": transformers.GPT2Config(
        vocab_size=107, n_embd=32, n_layer=3, n_head=4, n_positions=40, initializer_range=0.2, eos_token_id=1
    ),
    "qwen3_moe": transformers.Qwen3MoeConfig(**SIZES, **EXPERTS, head_dim=8, decoder_sparse_step=1),
    "deepseek_v3, keys wider than values": transformers.DeepseekV3Config(
        **SIZES | dict(num_key_value_heads=4, kv_lora_rank=8, q_lora_rank=16, qk_rope_head_dim=4),
        **dict(qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2, n_group=1),
        **dict(topk_group=1, moe_intermediate_size=16),
    ),
}


def policy_of(config):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    silence_dropout(model)
    return Policy(model.train(), make_codec(character_tokenizer(), None, {}), torch.device("cpu"), None)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_are_those_of_the_training_forward(family):
    policy = policy_of(FAMILIES[family])
    requests = requests_for(policy)
    groups = sample(policy, requests, read_every=3, max_tokens=24, batch_sequences=5, temperature=0.8)
    assert max(len(response.token_ids) for group in groups for response in group) == 24
    assert worst_difference(policy, requests, groups, temperature=0.8) < 1e-4


def test_log_probs_are_before_top_p_and_at_temperature_1_if_greedy(policy):
    requests = requests_for(policy)
    assert worst_difference(policy, requests, sample(policy, requests, top_p=0.5)) < 1e-4
    assert worst_difference(policy, requests, sample(policy, requests, temperature=0.0)) < 1e-4


REFUSED = {
    "mamba": transformers.MambaConfig(vocab_size=107, hidden_size=32, num_hidden_layers=2),
    "qwen3_next": transformers.Qwen3NextConfig(
        **SIZES | EXPERTS | dict(linear_num_value_heads=2, linear_num_key_heads=2)
    ),
    "llama4_text": transformers.Llama4TextConfig(**SIZES, num_local_experts=2, attention_chunk_size=8),
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_model_whose_past_is_no_key_and_value_a_token_is_refused_by_name(model_type):
    with pytest.raises(ConfigError, match=f"of type {model_type} has layers of \\w+_attention"):
        TransformersSampler(policy_of(REFUSED[model_type]))
