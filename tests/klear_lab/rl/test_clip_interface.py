"""What a clip method may ask for beside three tensors: responses, the sampler's log-probabilities, the mini-batch."""

import math
import random

import pytest
import torch

from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.micro_batches import equal_micro_batches
from klear_lab.rl.clip_methods import CLIP_METHODS, Responses, clip_method, describe, make_clip_method, unclipped
from klear_lab.rl.clip_methods.interface import definition_of, ratio_bounds
from klear_lab.rl.loss import ScoredResponse, TokenMeasures, backward, count_tokens
from klear_lab.rl.mismatch import Correction
from klear_lab.rl.probes import without_regions

NO_CORRECTION = Correction("none", 0.0, math.inf)


@pytest.fixture
def add(monkeypatch):
    """A function that registers a method for the length of a test."""

    def register(function):
        monkeypatch.setitem(CLIP_METHODS, function.__name__, None)
        return clip_method(function)

    return register


@pytest.fixture
def scored(policy):
    """Five responses, off-policy, of a sampler with log-probabilities; and the old log-probabilities."""
    stream, responses, old = random.Random(4), [], {}
    for number in range(5):
        ids = [stream.randrange(5, 40) for _ in range(stream.randint(2, 9))]
        response = ScoredResponse([6, 7], ids, False, number == 1, stream.choice([-1.0, 0.5]), number)
        with torch.no_grad():
            log_prob_T, _ = response_log_probs(policy, [response])
        noise = torch.Generator().manual_seed(number)
        old[number] = log_prob_T + 0.3 * torch.randn(len(ids), generator=noise).double()
        responses.append(ScoredResponse(**{**vars(response), "sampler_log_prob_T": old[number] - 0.1}))
    return responses, old


def run(policy, parts, old, method, token_mean="mini_batch"):
    policy.model.zero_grad()
    tokens = TokenMeasures.empty(sum(map(count_tokens, parts)), policy.model.dtype)
    settings = {"alpha": 0.0, "temperature": 1.0, "correction": NO_CORRECTION, "token_mean": token_mean}
    result = backward(policy, parts, method, dict(old), tokens, **settings)
    return torch.cat([p.grad.flatten() for p in policy.model.parameters()]), result


def assert_same(a, b):
    assert (a - b).norm() <= 1e-6 * a.norm()
    assert a.norm() > 1e-3


def test_what_a_method_needs_and_is_not_given_is_an_error_with_its_name(add):
    @add
    @describe(of_responses=True)
    def of_responses(tokens):
        return tokens.response_mean(tokens.log_ratio) * tokens.advantage

    @add
    @describe(statistics=lambda tokens: tokens.advantage.mean())
    def of_mini_batch(tokens):
        return tokens.log_prob * (tokens.advantage - tokens.statistics)

    three = torch.zeros(4, requires_grad=True), torch.zeros(4), torch.ones(4)
    with pytest.raises(ValueError, match=r"of_responses needs to know which tokens form a response: pass resp"):
        make_clip_method("of_responses")(*three)
    with pytest.raises(ValueError, match=r"of_mini_batch needs statistics of the whole mini-batch"):
        make_clip_method("of_mini_batch")(*three)
    objective = make_clip_method("of_responses")(*three, responses=Responses.of([1, 3])).objective
    assert objective.shape == (4,)


def test_a_response_is_summed_by_itself():
    values = torch.randn(9, generator=torch.Generator().manual_seed(0))
    seen = {}

    @describe(of_responses=True)
    def look(tokens):
        seen[len(tokens.log_prob)] = tokens.response_sum(tokens.log_prob), tokens.response_mean(tokens.log_prob)
        return tokens.log_prob

    CLIP_METHODS["look"] = None
    try:
        clip_method(look)
        method = make_clip_method("look")
        method(values, torch.zeros(9), torch.ones(9), responses=Responses.of([2, 4, 3]))
        method(values[2:6], torch.zeros(4), torch.ones(4), responses=Responses.of([4]))
    finally:
        del CLIP_METHODS["look"]
    for whole, alone in zip(seen[9], seen[4], strict=True):
        assert torch.equal(whole[2:6], alone)
    assert seen[9][1].tolist() == pytest.approx(
        [values[a:b].mean().item() for a, b in ((0, 2), (2, 6), (6, 9)) for _ in range(b - a)]
    )


@pytest.mark.parametrize("micro", [1, 2, 5])
def test_statistics_are_those_of_the_mini_batch_however_it_is_cut_or_ordered(policy, scored, add, micro):
    seen = []

    def note(tokens):
        seen.append((tokens.keys, tokens.log_ratio, tokens.advantage, tokens.sampler_log_prob))
        return tokens.log_ratio.exp().mean()

    @add
    @describe(statistics=note)
    def by_mean_ratio(tokens):
        return tokens.log_ratio.exp() / tokens.statistics * tokens.advantage

    responses, old = scored
    method = make_clip_method("by_mean_ratio")
    whole, _ = run(policy, [responses], old, method)
    shuffled = random.Random(1).sample(responses, len(responses))
    cut, _ = run(policy, equal_micro_batches(shuffled, micro), old, method)
    assert_same(cut, whole)
    first, second = seen
    assert torch.equal(first[0], second[0])
    for one, other in zip(first[1:], second[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    assert len(first[0]) == sum(len(r.response_ids) for r in responses)


def test_only_methods_that_ask_for_the_mini_batch_pay_for_it(policy, scored, add, monkeypatch):
    passes = []
    forward = policy.model.forward
    monkeypatch.setattr(policy.model, "forward", lambda *a, **k: passes.append(1) or forward(*a, **k))

    @add
    @describe(statistics=lambda tokens: tokens.log_ratio.sum())
    def asks(tokens):
        return tokens.log_prob * tokens.advantage

    responses, old = scored
    counts = {}
    for name in ("gppo", "asks"):
        passes.clear()
        run(policy, equal_micro_batches(responses, 2), old, make_clip_method(name))
        counts[name] = len(passes)
    assert counts["asks"] == 2 * counts["gppo"] > 0


def test_the_samplers_log_probabilities_reach_a_method_where_the_sampler_tells_them(policy, scored, add):
    seen = []

    @add
    def truncated(tokens):
        seen.append(tokens.sampler_log_prob)
        return tokens.log_prob * tokens.advantage

    responses, old = scored
    run(policy, [responses], old, make_clip_method("truncated"))
    torch.testing.assert_close(seen[0], torch.cat([r.sampler_log_prob_T for r in responses]))
    silent = [ScoredResponse(**{**vars(r), "sampler_log_prob_T": None}) for r in responses]
    run(policy, [silent], old, make_clip_method("truncated"))
    assert seen[-1] is None


def test_random_numbers_belong_to_a_token_of_a_response_a_seed_and_a_step(add):
    @add
    @describe(of_responses=True)
    def at_random(tokens):
        return tokens.log_prob

    def order(numbers, lengths, seed_name):
        ones = torch.ones(sum(lengths))
        method = make_clip_method("at_random").seeded(seed_name)
        return method.tokens(ones, ones, ones, Responses(lengths, numbers), None).random_order()

    both = order([7, 3], [2, 3], "0-clip-1")
    assert torch.equal(both[2:], order([3], [3], "0-clip-1"))
    assert len({*both.tolist(), *order([7, 3], [2, 3], "0-clip-2").tolist()}) == 10


def test_the_weight_counts_the_factors_of_all_tokens_that_a_response_shares(policy, scored, add):
    @add
    @describe(of_responses=True)
    def shared(tokens):
        return tokens.response_mean(tokens.log_ratio).exp() * tokens.advantage

    responses, old = scored
    settings = {"alpha": 0.0, "temperature": 1.0, "correction": Correction("tis", 0.0, 2.0)}
    tokens = TokenMeasures.empty(count_tokens(responses), policy.model.dtype)
    policy.model.zero_grad()
    result = backward(policy, [responses], make_clip_method("shared"), dict(old), tokens, **settings)
    got = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    policy.model.zero_grad()
    log_prob_N, _ = response_log_probs(policy, responses)
    (-(result.tokens.weight * log_prob_N).sum() / len(log_prob_N)).backward()
    want = torch.cat([p.grad.flatten() for p in policy.model.parameters()])
    assert_same(got, want)


@pytest.mark.parametrize("micro", [1, 2, 5])
def test_the_mean_over_sequences_is_that_of_their_token_means(policy, scored, micro):
    responses, old = scored
    method = make_clip_method("gppo")
    got, result = run(policy, equal_micro_batches(responses, micro), old, method, token_mean="sequence")
    alone = [run(policy, [[r]], old, method) for r in responses]
    assert_same(got, sum(g for g, _ in alone) / 5)
    assert result.policy_loss == pytest.approx(sum(r.policy_loss for _, r in alone) / 5)


def test_a_method_that_weighs_whole_responses_takes_no_dual_clip(add):
    @add
    @describe(of_responses=True)
    def whole(tokens, width=0.1):
        return tokens.log_prob * width

    with pytest.raises(ValueError, match="dual_clip: unknown; whole takes width"):
        make_clip_method("whole", dual_clip=3.0)


def test_a_method_without_bounds_has_no_regions_and_its_metrics_say_so(add):
    @add
    def free(tokens, width=0.1):
        return tokens.log_prob * width

    method = make_clip_method("free")
    output = method(torch.tensor([-9.0, 9.0]), torch.zeros(2), torch.tensor([-1.0, 1.0]))
    assert not method.has_bounds and not (output.below | output.above | output.low | output.high).any()
    logged = {
        "clip/low_fraction": 0.0,
        "clip/gradient_share_above_negative": 0.0,
        "policy/prob_old_unclipped": 0.3,
    }
    kept = {"clip/dual_fraction": 0.0, "policy/entropy": 1.0, "policy/entropy_quarter_1": 1.0, "ratio/mean": 1.0}
    assert without_regions({**logged, **kept}) == {**dict.fromkeys(logged), **kept}


def test_no_response_has_no_tokens():
    assert Responses.of([]).spread(torch.zeros(0)).shape == (0,)


@pytest.mark.parametrize("described", [{"of_responses": True}, {"statistics": lambda tokens, **_: 0}])
def test_a_described_method_keeps_the_bounds_of_its_parameters_unless_it_says_otherwise(described):
    def plain(tokens, eps_low=0.2, eps_high=0.28):
        return unclipped(tokens, silent=tokens.low | tokens.high)

    assert definition_of(plain).bounds is ratio_bounds
    assert definition_of(describe(**described)(plain)).bounds is ratio_bounds
    assert definition_of(describe(bounds=None, **described)(plain)).bounds is None
    assert definition_of(describe(**described)(lambda tokens, eps_low=0.2: tokens.log_prob)).bounds is None
