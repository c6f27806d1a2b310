"""Clip methods: gradients against the closed form F * A, extremes, relations between methods, wrong parameters."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.rl.clip_methods import CLIP_METHODS, make_clip_method

LOW, HIGH = 0.2, 0.28
BETA1, BETA2 = 0.6, 1.3


def method_of(name, dual_clip=None):
    betas = {"beta1": BETA1, "beta2": BETA2} if name == "ce_gppo" else {}
    return make_clip_method(name, eps_low=LOW, eps_high=HIGH, dual_clip=dual_clip, **betas)


def closed_form(name, ratio, advantage, dual_clip=None):
    """Returns F of the table in clip_methods.py, written as the table is, with plain numbers."""
    if dual_clip is not None and ratio > dual_clip and advantage < 0:
        return 0.0
    low, high = ratio < 1 - LOW and advantage < 0, ratio > 1 + HIGH and advantage > 0
    if name == "cispo":
        return min(max(ratio, 1 - LOW), 1 + HIGH)
    if name == "cispo_upper":
        return min(ratio, 1 + HIGH)
    if name in ("grpo", "clip_higher") and (low or high):
        return 0.0
    if name == "gppo" and (low or high):
        return 1 - LOW if low else 1 + HIGH
    if name == "gppo_upper" and high:
        return 1 + HIGH
    if name == "ce_gppo" and (low or high):
        return BETA1 * (1 - LOW) if low else BETA2 * (1 + HIGH)
    return ratio


def gradient(method, log_ratio, advantage, dtype=torch.float64):
    old = torch.full_like(torch.as_tensor(log_ratio, dtype=dtype), -0.7)
    log_prob = (old + torch.as_tensor(log_ratio, dtype=dtype)).requires_grad_()
    output = method(log_prob, old, torch.as_tensor(advantage, dtype=dtype))
    output.objective.sum().backward()
    return log_prob.grad, output


def grid():
    """Ratios around and at the bounds (a hair to either side, since exp rounds), and far out."""
    edges = [1 - LOW, 1 + HIGH, 1.0, 3.0]
    ratios = [r * (1 + d) for r in edges for d in (-1e-9, -1e-15, 0, 1e-15, 1e-9)]
    ratios += [1e-30, 1e-3, 0.3, 0.79, 0.81, 0.99, 1.01, 1.27, 1.29, 2.0, 2.99, 3.01, 10.0, 1e6, 1e30]
    return [(math.log(r), a) for r in ratios for a in (-2.5, -1.0, 0.0, 1.0, 0.3)]


@pytest.mark.parametrize("dual_clip", [None, 3.0])
@pytest.mark.parametrize("name", sorted(CLIP_METHODS))
def test_gradient_is_the_closed_form(name, dual_clip):
    log_ratio, advantage = map(list, zip(*grid(), strict=True))
    got, _ = gradient(method_of(name, dual_clip), log_ratio, advantage)
    # The ratio the method itself sees: log_prob - old_log_prob rounds.
    old = torch.full((len(log_ratio),), -0.7, dtype=torch.float64)
    ratio = (old + torch.tensor(log_ratio, dtype=torch.float64) - old).exp().tolist()
    want = [closed_form(name, r, a, dual_clip) * a for r, a in zip(ratio, advantage, strict=True)]
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64), rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", sorted(CLIP_METHODS))
@pytest.mark.parametrize("log_ratio", [-1e4, -200.0, -104.0, -90.0, -1.0, 0.0, 1.0, 50.0, 80.0])
@pytest.mark.parametrize("advantage", [-1.5, 1.5])
def test_float32_gradient_is_finite_and_exact(name, log_ratio, advantage):
    log_prob = torch.tensor([log_ratio], requires_grad=True)
    output = method_of(name)(log_prob, torch.zeros(1), torch.tensor([advantage]))
    output.objective.sum().backward()
    want = closed_form(name, math.exp(log_ratio), advantage) * advantage
    assert log_prob.grad.item() == pytest.approx(want, rel=1e-5, abs=1e-37)


@pytest.mark.parametrize("log_ratio", [89.0, 104.0, 1e4])
@pytest.mark.parametrize("name", sorted(set(CLIP_METHODS) - {"none"}))
def test_float32_gradient_is_exact_where_the_ratio_overflows_but_the_weight_is_constant(name, log_ratio):
    log_prob = torch.tensor([log_ratio], requires_grad=True)
    output = method_of(name)(log_prob, torch.zeros(1), torch.tensor([2.0]))
    output.objective.sum().backward()
    want = closed_form(name, math.inf, 2.0) * 2
    assert log_prob.grad.item() == pytest.approx(want, rel=1e-6)
    assert torch.isfinite(output.objective).all()


@pytest.mark.parametrize("name", sorted(CLIP_METHODS))
def test_dual_clip_silences_negative_tokens_whose_ratio_overflows(name):
    log_prob = torch.tensor([500.0], requires_grad=True)
    output = method_of(name, dual_clip=10.0)(log_prob, torch.zeros(1), torch.tensor([-1.0]))
    output.objective.sum().backward()
    assert (log_prob.grad.item(), output.objective.item(), output.dual.item()) == (0.0, -10.0, True)


@pytest.mark.parametrize("name", sorted(CLIP_METHODS))
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
def test_clip_higher_has_the_value_of_the_papers_minimum(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    _, output = gradient(method_of("clip_higher"), log_ratio, advantage)
    ratio, a = torch.tensor(log_ratio, dtype=torch.float64).exp(), torch.tensor(advantage, dtype=torch.float64)
    want = torch.minimum(ratio * a, ratio.clamp(1 - LOW, 1 + HIGH) * a)
    torch.testing.assert_close(output.objective, want, rtol=1e-9, atol=1e-12)


@given(tokens, st.sampled_from(sorted(CLIP_METHODS)))
def test_tokens_do_not_see_each_other(pairs, name):
    log_ratio, advantage = zip(*pairs, strict=True)
    together, _ = gradient(method_of(name, 3.0), log_ratio, advantage)
    alone = [gradient(method_of(name, 3.0), [x], [a])[0].item() for x, a in pairs]
    assert together.tolist() == alone


@given(tokens)
def test_a_clipped_tokens_weight_in_gppo_is_bounded(pairs):
    log_ratio, advantage = zip(*pairs, strict=True)
    got, output = gradient(method_of("gppo"), log_ratio, advantage)
    weight = (got / torch.tensor(advantage, dtype=torch.float64))[output.low | output.high]
    assert all(any(abs(w - b) < 1e-12 for b in (1 - LOW, 1 + HIGH)) for w in weight.tolist())


@given(tokens, st.sampled_from(sorted(CLIP_METHODS)))
def test_masks_are_the_regions_of_the_contract(pairs, name):
    log_ratio, advantage = zip(*pairs, strict=True)
    _, output = gradient(method_of(name, 3.0), log_ratio, advantage)
    for i, (x, a) in enumerate(pairs):
        r = math.exp(x)
        regions = (output.low[i].item(), output.high[i].item(), output.dual[i].item())
        assert regions == (r < 1 - LOW and a < 0, r > 1 + HIGH and a > 0, r > 3.0 and a < 0)
        assert (output.below[i].item(), output.above[i].item()) == (r < 1 - LOW, r > 1 + HIGH)


def test_without_dual_clip_no_token_is_beyond_it():
    _, output = gradient(method_of("gppo"), [5.0], [-1.0])
    assert not output.dual.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "gpo"}, "name=gpo: must be one of ce_gppo, cispo"),
        ({"name": "gppo", "eps_hi": 0.3}, "eps_hi: unknown; gppo takes eps_low, eps_high, dual_clip"),
        ({"name": "gppo", "beta1": 0.3}, "beta1: unknown"),
        ({"name": "gppo", "eps_low": 1.0}, "eps_low=1.0: must be at least 0 and below 1"),
        ({"name": "gppo", "eps_high": -0.1}, "eps_high=-0.1: must be at least 0"),
        ({"name": "gppo", "eps_high": "0.2"}, "eps_high=0.2: must be a number"),
        ({"name": "gppo", "eps_high": math.nan}, "must be a number"),
        ({"name": "gppo", "dual_clip": 0.9}, "dual_clip=0.9: must be above 1, or null"),
    ],
)
def test_wrong_parameters_are_named(arguments, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        make_clip_method(**arguments)
