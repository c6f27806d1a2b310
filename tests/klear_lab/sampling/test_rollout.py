"""Sampling: against greedy generate, the distribution it draws from, common random numbers, stopping."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from klear_lab.sampling.transformers import draw_tokens, draw_uniforms, invert, sample_responses
from klear_lab.sampling.types import Sampling

PROMPTS = ["1+2=", "7*5-3+4=", "9-9*9=", "3+4-5*6+7="]


def sample(policy, prompts=PROMPTS, **changes):
    arguments = dict(samples=3, max_tokens=12, temperature=1.0, top_p=1.0, batch_sequences=100, seed="s") | changes
    seed = arguments.pop("seed")
    ids = [policy.codec.encode_prompt([{"role": "user", "content": p}]) for p in prompts]
    return sample_responses(policy, ids, Sampling(**arguments), seed)


def test_greedy_sampling_is_transformers_greedy_generate(policy):
    groups = sample(policy, samples=1, temperature=0.0)
    for prompt, (response,) in zip(PROMPTS, groups, strict=True):
        ids = torch.tensor([policy.codec.encode_prompt([{"role": "user", "content": prompt}])])
        want = policy.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
        )[0, ids.shape[1] :].tolist()
        assert response.token_ids == want


@pytest.mark.parametrize("batch_sequences", [1, 3, 6, 7])
def test_batch_size_never_changes_a_response(policy, batch_sequences):
    assert sample(policy, batch_sequences=batch_sequences) == sample(policy)


def test_a_prompts_company_never_changes_its_responses(policy):
    # Random numbers belong to positions in the list, so company may only follow.
    assert sample(policy, PROMPTS[:2]) == sample(policy)[:2]


def test_the_seed_decides(policy):
    assert sample(policy) == sample(policy)
    assert sample(policy, seed="t") != sample(policy)


def test_responses_end_at_a_stop_token_or_the_limit(policy):
    stop = set(policy.stop_token_ids)
    responses = [r for group in sample(policy, samples=200, max_tokens=40) for r in group]
    assert {r.truncated for r in responses} == {True, False}
    for response in responses:
        assert response.truncated == (response.token_ids[-1] not in stop)
        assert not stop & set(response.token_ids[:-1])
        assert not response.truncated or len(response.token_ids) == 40


def test_first_tokens_follow_the_policys_probabilities(policy):
    ids = torch.tensor([policy.codec.encode_prompt([{"role": "user", "content": "1+2="}])])
    wanted = policy.model(input_ids=ids).logits[0, -1].softmax(-1)
    first = torch.tensor([r.token_ids[0] for r in sample(policy, ["1+2="], samples=20_000, max_tokens=1)[0]])
    found = torch.bincount(first, minlength=len(wanted)) / len(first)
    assert (found - wanted).abs().max() < 4 * (0.25 / 20_000) ** 0.5


@given(st.lists(st.floats(-4, 4), min_size=2, max_size=6), st.floats(0.05, 0.99), st.floats(0.2, 3))
def test_top_p_draws_the_smallest_set_that_reaches_it_in_proportion(logits, top_p, temperature):
    probability = (torch.tensor(logits) / temperature).softmax(-1).tolist()
    order = sorted(range(len(logits)), key=lambda i: -probability[i])
    sums = [sum(probability[j] for j in order[: n + 1]) for n in range(len(order))]
    # Where a sum lies at top_p, or two tokens tie at the border, rounding may decide either way.
    assume(all(abs(total - top_p) > 1e-4 for total in sums))
    nucleus = order[: 1 + sum(total < top_p for total in sums)]
    assume(all(abs(probability[i] - probability[nucleus[-1]]) > 1e-4 for i in order if i not in nucleus))
    uniform = (torch.arange(2000) + 0.5) / 2000
    drawn = draw_tokens(torch.tensor([logits]).repeat(2000, 1), uniform, temperature, top_p)
    found = torch.bincount(drawn, minlength=len(logits)) / 2000
    kept = sum(probability[i] for i in nucleus)
    want = torch.tensor([p / kept if i in nucleus else 0.0 for i, p in enumerate(probability)])
    assert (found - want).abs().max() <= 1.5 / 2000


def test_a_token_without_probability_is_never_drawn():
    weights = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]]).repeat(3, 1)
    largest = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()
    assert invert(weights, torch.tensor([0.0, 0.3, largest])).tolist() == [1, 3, 3]


def test_uniform_numbers_of_a_sequence_do_not_depend_on_how_many_follow():
    torch.testing.assert_close(draw_uniforms("a", 4, 8)[:2], draw_uniforms("a", 2, 8), rtol=0, atol=0)
