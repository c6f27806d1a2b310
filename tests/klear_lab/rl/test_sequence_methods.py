"""Methods that weigh whole responses: gradients against closed forms, what they may not depend on, extremes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.rl.clip_methods import CLIP_METHODS, Responses, make_clip_method
from support.clip_forms import OF_RESPONSES, Answer, derivatives, parameters_of, regions

NAMES = sorted(OF_RESPONSES)


def run(name, answers, dtype=torch.float64, **parameters):
    """The gradients of answers, side by side as in a micro-batch, and the method's output."""
    log_prob, old, advantage = (
        torch.tensor(np.concatenate([getattr(one, part) for one in answers]), dtype=dtype)
        for part in ("log_prob", "old_log_prob", "advantage")
    )
    log_prob.requires_grad_()
    responses = Responses.of([len(one.log_prob) for one in answers])
    method = make_clip_method(name, **{**parameters_of(name), **parameters})
    output = method(log_prob, old, advantage, responses=responses)
    output.objective.sum().backward()
    return log_prob.grad, output


# Each response: a shift of all its tokens, so that its own ratio leaves the bounds, and noise of each token.
responses = st.lists(
    st.tuples(st.floats(-0.6, 0.6), st.lists(st.floats(-0.8, 0.8), min_size=1, max_size=8), st.floats(-2, 2)),
    min_size=1,
    max_size=5,
)


def answers_of(drawn):
    answers = []
    for shift, noise, advantage in drawn:
        old = np.full(len(noise), -2.0)
        answers.append(Answer(old + shift + np.array(noise), old, np.full(len(noise), advantage)))
    return answers


@given(responses, st.sampled_from(NAMES))
def test_gradient_is_the_closed_form(drawn, name):
    answers = answers_of(drawn)
    got, _ = run(name, answers)
    want = np.concatenate(derivatives(name, answers))
    torch.testing.assert_close(got, torch.tensor(want), rtol=1e-9, atol=1e-12)


@given(responses, st.sampled_from(NAMES))
def test_masks_are_the_regions_of_the_method(drawn, name):
    answers = answers_of(drawn)
    _, output = run(name, answers)
    below, above = (np.concatenate(masks) for masks in zip(*(regions(name, one) for one in answers)))
    advantage = np.concatenate([one.advantage for one in answers])
    assert (output.below.tolist(), output.above.tolist()) == (below.tolist(), above.tolist())
    assert output.low.tolist() == (below & (advantage < 0)).tolist()
    assert output.high.tolist() == (above & (advantage > 0)).tolist()


@given(responses, st.sampled_from(NAMES))
def test_responses_do_not_see_each_other(drawn, name):
    answers = answers_of(drawn)
    together, _ = run(name, answers)
    alone = [run(name, [one])[0] for one in answers]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("log_ratio", [-700.0, -104.0, 89.0, 700.0])
@pytest.mark.parametrize("advantage", [-1.5, 0.0, 1.5])
def test_extreme_ratios_stay_finite_and_leave_other_responses_alone(name, log_ratio, advantage):
    old = np.array([-1.0, -1.0, -1.0 - abs(log_ratio)])
    wild = Answer(old + np.array([0.1, 0.0, log_ratio]), old, np.full(3, advantage))
    (calm,) = answers_of([(0.1, [0.2, -0.3], 1.0)])
    got, output = run(name, [wild, calm], torch.float32)
    assert got.isfinite().all() and output.objective.isfinite().all()
    assert torch.equal(got[3:], run(name, [calm], torch.float32)[0])
    want = np.concatenate(derivatives(name, [wild]))
    torch.testing.assert_close(got[:3], torch.tensor(want).float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_response_of_one_token_unmoved_has_the_weight_of_its_method_on_policy(name):
    one = Answer(np.array([-1.0]), np.array([-1.0]), np.array([2.0]))
    assert run(name, [one])[0].tolist() == [2.0]


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_it_needs_to_know_the_responses(name):
    with pytest.raises(ValueError, match=f"{name} needs to know which tokens form a response"):
        make_clip_method(name)(torch.zeros(3), torch.zeros(3), torch.ones(3))


def test_their_names_say_that_they_look_at_responses():
    assert {name for name, one in CLIP_METHODS.items() if one.of_responses} == {*NAMES}
