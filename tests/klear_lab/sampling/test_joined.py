"""The decoding step with joined weights: draws between steps, and sequences that share what they have in common."""

from types import SimpleNamespace

import pytest
import torch

from klear_lab.policy.model import Policy
from klear_lab.sampling import draws, joined
from klear_lab.sampling import transformers as module
from klear_lab.sampling.cache import SlotCache
from klear_lab.sampling.draws import make_requests
from support.dense_models import KNOWN, made
from support.sampled import flat, requests_for, sample, tokens


@pytest.mark.parametrize("slots", [4, 100])
def test_steps_that_draw_too_draw_what_single_steps_do(policy_32, monkeypatch, slots):
    several = sample(policy_32, read_every=3, batch_sequences=slots)
    asked = []
    monkeypatch.setattr(module.Batch, "draws_plainly", lambda batch: asked.append(batch.step) and False)
    single = sample(policy_32, read_every=3, batch_sequences=slots)
    assert isinstance(asked[0], module.JoinedStep)
    assert several[0] and not same_numbers(several, sample(policy_32, requests_for(policy_32, name="t")))
    assert same_numbers(several, single)


@pytest.mark.parametrize("peaked", [1, 6], ids=["responses that part soon", "alike for a while"])
def test_the_script_does_what_its_functions_do_in_python(policy_32, monkeypatch, peaked):
    with torch.no_grad():
        policy_32.model.lm_head.weight.mul_(peaked)
    scripted = sample(policy_32)
    monkeypatch.setattr(joined, "DRAW_SEVERAL", joined.draw_several)
    assert same_numbers(sample(policy_32), scripted)


@pytest.mark.parametrize("read_every", [1, 2, 5])
@pytest.mark.parametrize("slots", [4, 7, 100])
@pytest.mark.parametrize(
    ("peaked", "changed"), [(6, dict()), (4, dict(temperature=0.7, top_p=0.9)), (4, dict(temperature=0.0))]
)
def test_sequences_that_are_alike_are_read_once_and_draw_what_each_alone_would(
    policy_32, monkeypatch, peaked, changed, slots, read_every
):
    with torch.no_grad():
        policy_32.model.lm_head.weight.mul_(peaked)
    requests = requests_for(policy_32, samples=9)
    monkeypatch.setattr(joined, "DRAW_SEVERAL", joined.draw_several)
    monkeypatch.setattr(joined, "READ_ONE", joined.read_one_joined)
    read, own = [], joined.part_rows

    def part_rows(past, token_B):
        rows = own(past, token_B)
        read.append(len(rows[1]))
        return rows

    monkeypatch.setattr(joined, "part_rows", part_rows)
    shared = sample(policy_32, requests, read_every, batch_sequences=slots, max_tokens=20, **changed)
    rows = sum(read)
    read.clear()
    monkeypatch.setattr(SlotCache, "shares", property(lambda _: False, lambda *_: None), raising=False)
    apart = sample(policy_32, requests, read_every, batch_sequences=slots, max_tokens=20, **changed)
    assert tokens(shared) == tokens(apart)
    for one, other in zip(flat(shared), flat(apart), strict=True):
        torch.testing.assert_close(one.log_prob_T, other.log_prob_T, rtol=1e-4, atol=1e-4)
    kinds = len({(group, *response.token_ids) for group, some in enumerate(shared) for response in some})
    assert (kinds == 4) == (changed == dict(temperature=0.0))
    assert rows < 0.8 * sum(read)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", KNOWN)
@torch.no_grad()
def test_shared_sequences_have_the_log_probs_of_the_models_own_pass(name, dtype):
    model = made(KNOWN[name]).to(dtype)
    model.lm_head.weight.mul_(10)  # so that responses are alike for a while, and not all
    policy = Policy(model, SimpleNamespace(pad_token_id=0, stop_token_ids=[1]), torch.device("cpu"), None)
    prompts = [[5, 6, 7, 8, 9], [10], [5, 6], [5, 6, 7]]
    groups = sample(policy, make_requests(prompts, 6, "s"), batch_sequences=13, max_tokens=15)
    responses = [tuple(response.token_ids) for response in flat(groups)]
    assert 4 < len({*responses}) < len(responses)
    for prompt, group in zip(prompts, groups, strict=True):
        for response in group:
            ids = torch.tensor(prompt + response.token_ids)
            log_probs_TV = model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            want_T = log_probs_TV.gather(1, ids[len(prompt) :, None])[:, 0].float()
            torch.testing.assert_close(response.log_prob_T, want_T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changed", [dict(temperature=0.6), dict(top_p=0.9), dict(temperature=0.0)])
def test_only_plain_draws_are_made_between_steps(policy_32, monkeypatch, changed):
    def refuse(*_):
        raise AssertionError("tokens weren't to be drawn so")

    plain = sample(policy_32)
    monkeypatch.setattr(module.JoinedStep, "draw_several", refuse)
    assert not same_numbers(sample(policy_32, **changed), plain)
    monkeypatch.setattr(draws, "NUMBERS_AT_ONCE", {"cpu": policy_32.model.config.vocab_size - 1})
    assert same_numbers(sample(policy_32), plain)


def same_numbers(some, others):
    """Whether responses have the same tokens and log-probabilities, bit for bit."""
    pairs = zip(flat(some), flat(others), strict=True)
    return all(a.token_ids == b.token_ids and torch.equal(a.log_prob_T, b.log_prob_T) for a, b in pairs)
