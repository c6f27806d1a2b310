"""Methods that look at the whole mini-batch: closed forms, random choices, extremes, and that no cut matters."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from klear_lab.rl.clip_methods import CLIP_METHODS, Responses, make_clip_method
from support.clip_forms import OF_MINI_BATCHES, Answer, bapo_bounds, covariances, derivatives, parameters_of

NAMES = sorted(OF_MINI_BATCHES)
DTYPE = torch.float64


def answers_of(seed, count=12, spread=0.4):
    stream, answers = np.random.default_rng(seed), []
    for _ in range(count):
        old = -stream.exponential(1.0, stream.integers(1, 9)) - 0.01
        log_prob = -np.abs(old + spread * stream.normal(size=len(old))) - 1e-3
        answers.append(Answer(log_prob, old, np.full(len(old), stream.normal())))
    return answers


def tensors(answers, dtype=DTYPE):
    parts = ("log_prob", "old_log_prob", "advantage")
    return [torch.tensor(np.concatenate([getattr(one, part) for one in answers]), dtype=dtype) for part in parts]


def responses_of(answers, numbers=None):
    lengths = [len(one.log_prob) for one in answers]
    return Responses(lengths, numbers or range(len(lengths)))


def run(method, answers, dtype=DTYPE, parts=None):
    """The gradient of each answer, with the mini-batch's statistics, taken part by part; and the statistics."""
    numbers = range(len(answers))
    statistics = method.measure(*tensors(answers, dtype), responses=responses_of(answers))
    gradients = {}
    for part in parts or [[*numbers]]:
        own = [answers[number] for number in part]
        log_prob, old, advantage = tensors(own, dtype)
        log_prob.requires_grad_()
        responses = responses_of(own, part)
        output = method(log_prob, old, advantage, responses=responses, statistics=statistics)
        output.objective.sum().backward()
        gradients |= dict(zip(part, log_prob.grad.split(list(responses.lengths)), strict=True))
    return torch.cat([gradients[number] for number in numbers]), statistics


def make(name, **other):
    return make_clip_method(name, **{**parameters_of(name), **other})


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_closed_form(name, seed):
    answers = answers_of(seed)
    got, _ = run(make(name), answers)
    want = np.concatenate(derivatives(name, answers))
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_cuts_of_the_mini_batch_change_no_gradient(name):
    answers = answers_of(3)
    method = make(name, **({"share": 0.05} if name != "bapo" else {})).seeded("0-clip-1")
    whole, _ = run(method, answers)
    order = random.Random(0).sample(range(len(answers)), len(answers))
    for size in (1, 5):
        cut, _ = run(method, answers, parts=[order[i : i + size] for i in range(0, len(order), size)])
        assert torch.equal(cut, whole)


@given(st.integers(0, 10**6), st.floats(0.2, 3.0), st.floats(0.1, 1.0))
def test_bapo_stops_at_the_first_bounds_where_positive_tokens_weigh_enough(seed, target, spread):
    answers = answers_of(seed, spread=spread)
    own = {**parameters_of("bapo"), "target": target}
    want = bapo_bounds(answers, **own)
    _, got = run(make("bapo", target=target), answers)
    assert got == pytest.approx(want)


def test_bapo_leaves_its_bounds_where_they_start_without_negative_tokens():
    answers = [dataclasses.replace(one, advantage=np.abs(one.advantage)) for one in answers_of(0)]
    assert run(make("bapo"), answers)[1] == (0.7, 1.1)


def drawn(answers, seed_name, share=0.05, numbers=None):
    method = make("clip_cov", share=share).seeded(seed_name)
    return method.measure(*tensors(answers), responses=responses_of(answers, numbers)).tolist()


def test_clip_cov_draws_a_share_of_all_tokens_among_its_candidates():
    answers = answers_of(1, count=60)
    parts, _ = covariances(answers)
    own = parameters_of("clip_cov")
    candidates = {
        (number << 32) + position
        for number, (one, c) in enumerate(zip(answers, parts, strict=True))
        for position in range(len(c))
        if own["cov_low"] < c[position] < own["cov_high"]
        and not (one.ratio[position] < own["low"] and one.advantage[position] < 0)
        and not (one.ratio[position] > own["high"] and one.advantage[position] > 0)
    }
    keys = drawn(answers, "0-clip-1")
    assert {*keys} < candidates
    assert len({*keys}) == len(keys) == int(0.05 * sum(len(one.ratio) for one in answers)) > 5
    assert {*drawn(answers, "0-clip-1", share=1.0)} == candidates
    assert len(drawn(answers, "0-clip-1", share=0.0)) == 1


def test_clip_cov_draws_by_seed_step_response_and_position_whatever_the_order():
    answers = answers_of(1, count=60)
    keys = drawn(answers, "0-clip-1")
    order = random.Random(2).sample(range(60), 60)
    assert {*drawn([answers[i] for i in order], "0-clip-1", numbers=order)} == {*keys}
    for other in ("1-clip-1", "0-clip-2"):
        assert {*drawn(answers, other)} != {*keys}
    often = [key for step in range(200) for key in drawn(answers, f"0-clip-{step}")]
    candidates = drawn(answers, "", share=1.0)
    expected = len(often) / len(candidates)
    counts = np.array([often.count(key) for key in candidates])
    assert ((counts - expected) ** 2 / expected).sum() < 1.4 * len(candidates)  # chi-squared: about its degrees


@given(st.integers(0, 10**6))
def test_kl_cov_adds_nothing_where_no_token_has_moved(seed):
    answers = [dataclasses.replace(one, log_prob=one.old_log_prob, ratio=None) for one in answers_of(seed)]
    assume(len(answers) > 1)
    got, _ = run(make("kl_cov"), answers)
    assert torch.equal(got, tensors(answers)[2])


# kl_cov clips nothing, so a ratio that overflows has the weight that it has.
@pytest.mark.parametrize(("name", "most"), [("bapo", 700.0), ("clip_cov", 700.0), ("kl_cov", 80.0)])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_extreme_ratios_never_give_nan_and_leave_other_tokens_alone(name, most, sign):
    advantage = np.full(3, 1.5 if sign > 0 else -1.5)
    old = np.array([-1.0, -1.0, -1.0 - most])
    log_prob = np.array([-0.9, -1.0 - 104.0, -1.0]) if sign > 0 else np.array([-0.9, -105.0, -1.0 - 2 * most])
    wild, calm = Answer(log_prob, old, advantage), answers_of(5, count=4)
    got, _ = run(make(name), [wild, *calm], torch.float32)
    want = np.concatenate(derivatives(name, [wild, *calm]))
    assert got.isfinite().all()
    torch.testing.assert_close(got, torch.tensor(want).float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_it_needs_the_mini_batch(name):
    with pytest.raises(ValueError, match=f"{name} needs statistics of the whole mini-batch"):
        make_clip_method(name)(torch.zeros(3), torch.zeros(3), torch.ones(3))


def test_their_names_say_that_they_look_at_the_mini_batch():
    assert {name for name, one in CLIP_METHODS.items() if one.statistics} == {*NAMES}
