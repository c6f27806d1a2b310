"""Clip methods: gradients against the closed form F * A, extremes, relations between methods, wrong parameters."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.rl.clip_methods import CLIP_METHODS, make_clip_method
from support.clip_forms import (
    HIGH,
    LOW,
    OF_MINI_BATCHES,
    OF_RESPONSES,
    OF_TOKENS,
    Answer,
    derivatives,
    parameters_of,
    regions,
)

PER_TOKEN = sorted(OF_TOKENS)
DUAL = 3.0


def method_of(name, dual_clip=None):
    return make_clip_method(name, dual_clip=dual_clip, **parameters_of(name))


def as_array(values):
    return torch.as_tensor(values, dtype=torch.float64).numpy()


def answer(log_ratio, advantage, old=-0.7, ratio=None):
    log_ratio = as_array(log_ratio)
    ratio = None if ratio is None else as_array(ratio)
    return Answer(log_ratio + old, np.full_like(log_ratio, old), as_array(advantage), ratio)


def closed_form(name, log_ratio, advantage, dual_clip=None, **known):
    """F A of single tokens."""
    (found,) = derivatives(name, [answer(log_ratio, advantage, **known)], dual_clip)
    return found.tolist()


def gradient(method, log_ratio, advantage, dtype=torch.float64):
    old = torch.full_like(torch.as_tensor(log_ratio, dtype=dtype), -0.7)
    log_prob = (old + torch.as_tensor(log_ratio, dtype=dtype)).requires_grad_()
    output = method(log_prob, old, torch.as_tensor(advantage, dtype=dtype))
    output.objective.sum().backward()
    return log_prob.grad, output


def test_every_method_has_its_closed_form():
    assert sorted([*OF_TOKENS, *OF_RESPONSES, *OF_MINI_BATCHES]) == sorted(CLIP_METHODS)


def grid():
    """Ratios around and at the bounds (a hair to either side, since exp rounds), and far out."""
    edges = [1 - LOW, 1 + HIGH, 1.0, 3.0]
    ratios = [r * (1 + d) for r in edges for d in (-1e-9, -1e-15, 0, 1e-15, 1e-9)]
    ratios += [1e-30, 1e-3, 0.3, 0.79, 0.81, 0.99, 1.01, 1.27, 1.29, 2.0, 2.99, 3.01, 10.0, 1e6, 1e30]
    return [(math.log(r), a) for r in ratios for a in (-2.5, -1.0, 0.0, 1.0, 0.3)]


@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize("name", PER_TOKEN)
def test_gradient_is_the_closed_form(name, dual_clip):
    log_ratio, advantage = map(list, zip(*grid(), strict=True))
    got, _ = gradient(method_of(name, dual_clip), log_ratio, advantage)
    # The ratio the method itself sees: log_prob - old_log_prob rounds.
    old = torch.full((len(log_ratio),), -0.7, dtype=torch.float64)
    ratio = (old + torch.tensor(log_ratio, dtype=torch.float64) - old).exp()
    want = closed_form(name, log_ratio, advantage, dual_clip, ratio=ratio)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PER_TOKEN)
@pytest.mark.parametrize("log_ratio", [-1e4, -200.0, -104.0, -90.0, -1.0, 0.0, 1.0, 50.0, 80.0])
@pytest.mark.parametrize("advantage", [-1.5, 1.5])
def test_float32_gradient_is_finite_and_exact(name, log_ratio, advantage):
    log_prob = torch.tensor([log_ratio], requires_grad=True)
    output = method_of(name)(log_prob, torch.zeros(1), torch.tensor([advantage]))
    output.objective.sum().backward()
    (want,) = closed_form(name, [log_ratio], [advantage], old=0.0)
    assert log_prob.grad.item() == pytest.approx(want, rel=1e-5, abs=1e-37)


@pytest.mark.parametrize("log_ratio", [89.0, 104.0, 1e4])
@pytest.mark.parametrize("name", sorted({*PER_TOKEN} - {"none", "dgpo"}))  # whose weights grow with r
def test_float32_gradient_is_exact_where_the_ratio_overflows_but_the_weight_is_constant(name, log_ratio):
    log_prob = torch.tensor([log_ratio], requires_grad=True)
    output = method_of(name)(log_prob, torch.zeros(1), torch.tensor([2.0]))
    output.objective.sum().backward()
    (want,) = closed_form(name, [log_ratio], [2.0], old=0.0, ratio=[math.inf])
    assert log_prob.grad.item() == pytest.approx(want, rel=1e-6)
    assert torch.isfinite(output.objective).all()


@pytest.mark.parametrize("name", PER_TOKEN)
def test_dual_clip_silences_negative_tokens_whose_ratio_overflows(name):
    log_prob = torch.tensor([500.0], requires_grad=True)
    output = method_of(name, dual_clip=10.0)(log_prob, torch.zeros(1), torch.tensor([-1.0]))
    output.objective.sum().backward()
    assert (log_prob.grad.item(), output.objective.item(), output.dual.item()) == (0.0, -10.0, True)


@pytest.mark.parametrize("name", PER_TOKEN)
def test_a_token_without_advantage_has_no_gradient_however_far_its_ratio(name):
    log_prob = torch.tensor([-300.0, 0.0, 300.0], requires_grad=True)
    method_of(name)(log_prob, torch.zeros(3), torch.zeros(3)).objective.sum().backward()
    assert log_prob.grad.tolist() == [0.0, 0.0, 0.0]


tokens = st.lists(
    st.tuples(
        st.floats(-8, 8, allow_nan=False).filter(
            # At a bound itself float rounding decides, which the grid above covers.
            lambda x: all(abs(math.exp(x) - b) > 1e-9 for b in (1 - LOW, 1 + HIGH))
        ),
        st.floats(-3, 3, allow_nan=False, allow_subnormal=False),  # which lose digits
    ),
    min_size=1,
    max_size=20,
)


@given(tokens)
def test_gppo_has_the_value_of_clip_higher(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    _, gppo = gradient(method_of("gppo"), log_ratio, advantage)
    _, clip_higher = gradient(method_of("clip_higher"), log_ratio, advantage)
    torch.testing.assert_close(gppo.objective, clip_higher.objective, rtol=1e-12, atol=0)


@given(tokens)
def test_ce_gppo_with_betas_of_one_is_gppo(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    one = make_clip_method("ce_gppo", eps_low=LOW, eps_high=HIGH, beta1=1.0, beta2=1.0)
    torch.testing.assert_close(
        gradient(one, log_ratio, advantage)[0],
        gradient(method_of("gppo"), log_ratio, advantage)[0],
        rtol=0,
        atol=0,
    )


@given(tokens)
def test_dgpo_without_decay_below_and_with_all_of_it_above_is_gppo_upper(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    got, output = gradient(make_clip_method("dgpo", eps_low=LOW, eps_high=HIGH, n=0, m=1), log_ratio, advantage)
    want, upper = gradient(method_of("gppo_upper"), log_ratio, advantage)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(output.objective, upper.objective, rtol=1e-12, atol=0)


@given(tokens)
def test_dgpo_lies_between_no_clipping_and_gppo_above_and_below_no_clipping_on_the_low_side(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    got, output = gradient(method_of("dgpo"), log_ratio, advantage)
    free, _ = gradient(method_of("none"), log_ratio, advantage)
    gppo, _ = gradient(method_of("gppo"), log_ratio, advantage)
    high, low = output.high, output.low
    assert ((gppo[high] <= got[high]) & (got[high] <= free[high])).all()
    assert (got[low].abs() <= free[low].abs()).all()


@given(tokens)
def test_drpo_with_an_endless_threshold_clips_nothing(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    got, output = gradient(make_clip_method("drpo", threshold=1e15), log_ratio, advantage)
    want, _ = gradient(method_of("none"), log_ratio, advantage)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=0)
    assert not (output.below | output.above).any()


moves_of_probability = st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.1, 3)).filter(
    lambda move: abs(abs(move[0] - move[1]) - 0.2) > 1e-9
)


@given(st.lists(moves_of_probability, min_size=1))
def test_drpo_pulls_a_token_back_exactly_in_its_clip_regions(moves):
    q, p, size = torch.tensor(moves, dtype=torch.float64).T
    for advantage in (size, -size):
        log_prob = p.log().requires_grad_()
        output = make_clip_method("drpo", threshold=0.2)(log_prob, q.log(), advantage)
        output.objective.sum().backward()
        pulled_back = log_prob.grad.sign() == -advantage.sign()
        assert pulled_back.tolist() == (output.low | output.high).tolist()


@given(tokens)
def test_clip_higher_has_the_value_of_the_papers_minimum(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    _, output = gradient(method_of("clip_higher"), log_ratio, advantage)
    ratio, a = torch.tensor(log_ratio, dtype=torch.float64).exp(), torch.tensor(advantage, dtype=torch.float64)
    want = torch.minimum(ratio * a, ratio.clamp(1 - LOW, 1 + HIGH) * a)
    torch.testing.assert_close(output.objective, want, rtol=1e-9, atol=1e-12)


@given(tokens, st.sampled_from(PER_TOKEN))
def test_tokens_do_not_see_each_other(pairs, name):
    log_ratio, advantage = zip(*pairs, strict=True)
    together, _ = gradient(method_of(name, DUAL), log_ratio, advantage)
    alone = [gradient(method_of(name, DUAL), [x], [a])[0].item() for x, a in pairs]
    assert together.tolist() == alone


@given(tokens)
def test_a_clipped_tokens_weight_in_gppo_is_bounded(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    got, output = gradient(method_of("gppo"), log_ratio, advantage)
    weight = (got / torch.tensor(advantage, dtype=torch.float64))[output.low | output.high]
    assert all(any(abs(w - b) < 1e-12 for b in (1 - LOW, 1 + HIGH)) for w in weight.tolist())


@given(tokens, st.sampled_from(PER_TOKEN))
def test_masks_are_the_regions_of_the_contract(pairs, name):
    log_ratio, advantage = zip(*pairs, strict=True)
    _, output = gradient(method_of(name, DUAL), log_ratio, advantage)
    one = answer(log_ratio, advantage)
    below, above = regions(name, one)
    assert (output.below.tolist(), output.above.tolist()) == (below.tolist(), above.tolist())
    assert output.low.tolist() == (below & (one.advantage < 0)).tolist()
    assert output.high.tolist() == (above & (one.advantage > 0)).tolist()
    assert output.dual.tolist() == ((one.ratio > DUAL) & (one.advantage < 0)).tolist()


def test_without_dual_clip_no_token_is_beyond_it():
    _, output = gradient(method_of("gppo"), [5.0], [-1.0])
    assert not output.dual.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "gpo"}, "name=gpo: must be one of aspo"),
        ({"name": "gppo", "eps_hi": 0.3}, "eps_hi: unknown; gppo takes eps_low, eps_high, dual_clip"),
        ({"name": "gppo", "beta1": 0.3}, "beta1: unknown"),
        ({"name": "gppo", "eps_low": 1.0}, "eps_low=1.0: must be at least 0 and below 1"),
        ({"name": "gppo", "eps_high": -0.1}, "eps_high=-0.1: must be at least 0"),
        ({"name": "gppo", "eps_high": "0.2"}, "eps_high=0.2: must be a number"),
        ({"name": "gppo", "eps_high": math.nan}, "must be a number"),
        ({"name": "drpo", "threshold": 0}, "threshold=0: must be above 0"),
        ({"name": "dgpo", "m": 0.0}, "m=0.0: must be above 0"),
        ({"name": "gppo", "dual_clip": 0.9}, "dual_clip=0.9: must be above 1, or null"),
        ({"name": "clip_cov", "cov_low": 6}, "cov_low=6: must be at most cov_high=5.0"),
        ({"name": "clip_cov", "low": 3, "high": 2}, "low=3: must be at most high=2"),
        ({"name": "bapo", "low_start": 0.95}, "low_start=0.95: must be at most low_end=0.9"),
        ({"name": "bapo", "low_end": 2, "high_start": 1.1}, "low_end=2: must be at most high_start=1.1"),
        ({"name": "bapo", "high_end": 1.1}, "high_start=1.2: must be at most high_end=1.1"),
    ],
)
def test_wrong_parameters_are_named(arguments, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        make_clip_method(**arguments)
