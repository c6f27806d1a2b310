"""The loss: invariances of the gradient, its closed form, masking, the alpha term."""

import dataclasses
import math
import random

import pytest
import torch

from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.micro_batches import equal_micro_batches, micro_batches
from klear_lab.rl.clip_methods import CLIP_METHODS, make_clip_method
from klear_lab.rl.loss import ScoredResponse, TokenMeasures, backward, count_tokens
from klear_lab.rl.mismatch import Correction

NO_CORRECTION = Correction("none", 0.0, math.inf)


def make_responses(policy, count=7, seed=0, drift=0.8):
    """Random responses of unequal length, and old log-probabilities that lie off the policy's."""
    stream, noise = random.Random(seed), torch.Generator().manual_seed(seed)
    responses, old = [], {}
    for i in range(count):
        prompt = [stream.randrange(5, 15) for _ in range(stream.randint(1, 6))]
        response = [stream.randrange(5, 40) for _ in range(stream.randint(1, 9))]
        scored = ScoredResponse(prompt, response, False, i % 3 == 0, stream.choice([-1.2, 0.4, 1.0]), i)
        with torch.no_grad():
            log_prob_N, _ = response_log_probs(policy, [scored])
        shift = torch.randn(len(response), generator=noise, dtype=torch.float64)
        responses.append(scored)
        old[i] = log_prob_N + drift * shift
    return responses, old


def gradient(policy, batch, *, micro=100, **settings):
    """The gradient of a mini-batch that is cut into micro-batches of `micro` sequences, and its losses."""
    responses, old = batch
    return gradient_of_cut(policy, equal_micro_batches(responses, micro), old, **settings)


def gradient_of_cut(
    policy, parts, old, *, method="gppo", alpha=0.1, token_mean="mini_batch", correction=NO_CORRECTION
):
    policy.model.zero_grad()
    count = sum(map(count_tokens, parts))
    result = backward(
        policy,
        parts,
        make_clip_method(method),
        dict(old),
        TokenMeasures.empty(count, policy.model.dtype),
        alpha=alpha,
        temperature=1.0,
        correction=correction,
        token_mean=token_mean,
    )
    return torch.cat([p.grad.flatten() for p in policy.model.parameters()]), result


def assert_same(a, b):
    assert (a - b).norm() <= 1e-6 * a.norm()
    assert a.norm() > 1e-3


@pytest.mark.parametrize("alpha", [0.0, 0.1])
@pytest.mark.parametrize("method", sorted(CLIP_METHODS))
def test_micro_batch_size_never_changes_the_gradient(policy, method, alpha):
    responses = make_responses(policy)
    whole, _ = gradient(policy, responses, method=method, alpha=alpha)
    for micro in (1, 3):
        assert_same(whole, gradient(policy, responses, method=method, alpha=alpha, micro=micro)[0])


@pytest.mark.parametrize("method", sorted(CLIP_METHODS))
def test_order_never_changes_the_gradient(policy, method):
    responses, old = make_responses(policy)
    shuffled = random.Random(1).sample(responses, len(responses))
    in_order, _ = gradient(policy, (responses, old), micro=3, method=method)
    assert_same(in_order, gradient(policy, (shuffled, old), micro=3, method=method)[0])


def test_cuts_by_tokens_give_the_gradient_of_one_pass(policy):
    responses, old = make_responses(policy, count=20)
    whole, _ = gradient(policy, (responses, old))
    for tokens in (None, 12, 30):
        parts = micro_batches(responses, 6, tokens)
        assert len(parts) > 3
        assert_same(whole, gradient_of_cut(policy, parts, old)[0])


def test_padding_never_changes_log_probs(policy):
    short, *others = make_responses(policy)[0]
    longest = ScoredResponse([7] * 30, [8] * 40, False, False, 1.0, 0)
    alone, alone_entropy = response_log_probs(policy, [short])
    padded, padded_entropy = response_log_probs(policy, [short, longest, *others])
    torch.testing.assert_close(padded[: len(alone)], alone, rtol=1e-12, atol=0)
    torch.testing.assert_close(padded_entropy[: len(alone)], alone_entropy, rtol=1e-9, atol=0)


def test_micro_batches_in_float32_agree_to_a_millionth(policy):
    policy.model.float()
    responses = make_responses(policy)
    assert_same(gradient(policy, responses)[0], gradient(policy, responses, micro=3)[0])


def test_log_probs_and_entropy_are_those_of_a_loop_over_tokens(policy):
    rollout = make_responses(policy, count=1)[0][0]
    log_prob_N, entropy_N = response_log_probs(policy, [rollout], temperature=1.7)
    ids = rollout.prompt_ids + rollout.response_ids
    for i, token in enumerate(rollout.response_ids):
        context = torch.tensor([ids[: len(rollout.prompt_ids) + i]])
        distribution = torch.distributions.Categorical(logits=policy.model(input_ids=context).logits[0, -1] / 1.7)
        torch.testing.assert_close(log_prob_N[i], distribution.log_prob(torch.tensor(token)))
        torch.testing.assert_close(entropy_N[i], distribution.entropy())


@pytest.mark.parametrize("method", sorted(CLIP_METHODS))
def test_the_parameters_gradient_is_the_token_mean_of_weight_times_grad_log_prob(policy, method):
    """-sum(F A grad log pi) / N, with F A as the probes record it, in the order of the record."""
    responses = make_responses(policy)
    got, result = gradient(policy, responses, method=method, alpha=0.0)
    policy.model.zero_grad()
    log_prob_N, _ = response_log_probs(policy, responses[0])
    (-(result.tokens.weight * log_prob_N).sum() / len(log_prob_N)).backward()
    assert_same(got, torch.cat([p.grad.flatten() for p in policy.model.parameters()]))


def test_the_alpha_term_is_the_mean_negative_log_likelihood_of_correct_responses(policy):
    responses = make_responses(policy)
    without, _ = gradient(policy, responses, alpha=0.0)
    with_term, result = gradient(policy, responses, alpha=0.3)
    policy.model.zero_grad()
    log_prob_N, _ = response_log_probs(policy, [r for r in responses[0] if r.correct])
    nll = -log_prob_N.mean()
    nll.backward()
    term = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    assert_same(with_term - without, 0.3 * term)
    assert result.sft_loss == pytest.approx(nll.item())


def test_without_a_correct_response_there_is_no_sft_loss(policy):
    scored, old = make_responses(policy)
    responses = [dataclasses.replace(response, correct=False) for response in scored], old
    with_alpha, result = gradient(policy, responses, alpha=0.5)
    assert_same(gradient(policy, responses, alpha=0.0)[0], with_alpha)
    assert result.sft_loss is None


def test_on_policy_all_methods_give_the_policy_gradient(policy):
    responses = make_responses(policy, drift=0.0)
    reference, _ = gradient(policy, responses, method="none")
    for method in {*CLIP_METHODS} - {"luspo", "clip_cov"}:  # one weighs by length, one silences tokens
        got, result = gradient(policy, responses, method=method)
        assert_same(reference, got)
        assert not (result.tokens.low | result.tokens.high).any()


def test_a_token_whose_ratio_overflows_never_poisons_the_batch(policy):
    policy.model.float()
    responses, old = make_responses(policy)
    for place, shift in enumerate((-300.0, 300.0)):
        # r overflows upwards with A > 0, vanishes with A < 0
        responses[place] = dataclasses.replace(responses[place], advantage=1.0 if shift < 0 else -1.0)
        old[place] = old[place] + shift
    for method in sorted(set(CLIP_METHODS) - {"none", "dgpo", "kl_cov"}):  # whose weights grow with r
        assert gradient(policy, (responses, old), method=method)[0].isfinite().all()


def test_the_authors_mean_is_that_of_each_micro_batch_weighted_by_its_sequences(policy):
    responses, old = make_responses(policy)
    got, result = gradient(policy, (responses, old), micro=3, token_mean="micro_batch")
    parts = [responses[:3], responses[3:6], responses[6:]]
    means = [(len(part) / len(responses), *gradient(policy, (part, old))) for part in parts]
    assert_same(got, sum(share * of_part for share, of_part, _ in means))
    assert result.policy_loss == pytest.approx(sum(share * r.policy_loss for share, _, r in means))
    assert result.sft_loss == pytest.approx(sum(share * (r.sft_loss or 0.0) for share, _, r in means))


def test_the_authors_mean_depends_on_the_micro_batch_and_is_ours_where_there_is_one(policy):
    responses = make_responses(policy)
    ours, _ = gradient(policy, responses)
    assert_same(ours, gradient(policy, responses, token_mean="micro_batch")[0])
    split, _ = gradient(policy, responses, micro=3, token_mean="micro_batch")
    assert (split - ours).norm() > 1e-2 * ours.norm()


def test_a_correction_weighs_the_policy_term_of_each_token_and_not_the_sft_term(policy):
    scored, old = make_responses(policy)
    noise = torch.Generator().manual_seed(3)
    responses = [
        dataclasses.replace(
            r, sampler_log_prob_T=old[r.number] - torch.randn(len(r.response_ids), generator=noise).double()
        )
        for r in scored
    ]
    parts = equal_micro_batches(responses, 3)
    got, result = gradient_of_cut(policy, parts, old, alpha=0.2, correction=Correction("icepop", 0.5, 1.5))
    ordered = [r for part in parts for r in part]
    mismatch_N = torch.cat([(old[r.number] - r.sampler_log_prob_T).exp() for r in ordered])
    kept_N = (mismatch_N >= 0.5) & (mismatch_N <= 1.5)
    assert 0 < kept_N.sum() < len(kept_N)
    assert torch.equal(result.tokens.mismatch_low | result.tokens.mismatch_high, ~kept_N)
    policy.model.zero_grad()
    log_prob_N, _ = response_log_probs(policy, ordered)
    correct_N = torch.cat([torch.full((len(r.response_ids),), r.correct) for r in ordered])
    (-(result.tokens.weight * log_prob_N).sum() / len(log_prob_N) - 0.2 * log_prob_N[correct_N].mean()).backward()
    assert_same(got, torch.cat([p.grad.flatten() for p in policy.model.parameters()]))
    plain = gradient_of_cut(policy, parts, old, alpha=0.2)[1].tokens.weight
    torch.testing.assert_close(result.tokens.weight, plain * mismatch_N * kept_N)
