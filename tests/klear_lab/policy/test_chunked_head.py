"""The chunked head against the plain computation: values, gradients, memory."""

import pytest
import torch

from klear_lab.policy.chunked_head import CHUNKS, LARGE, SMALL, chunked_log_probs, count_chunks
from support.memory import Memory

SETTINGS = [
    {},
    {"temperature": 0.7},
    {"scale": 0.25, "temperature": 1.3},
    {"cap": 2.0},
    {"cap": 2.0, "scale": 3.0, "temperature": 0.6},
]


def plain(hidden_NH, weight_VH, bias_V, target_N, *, temperature=1.0, scale=1.0, cap=None):
    """All logits at once, in the dtype of the weight."""
    logits_NV = torch.nn.functional.linear(hidden_NH, weight_VH, bias_V) * scale
    if cap is not None:
        logits_NV = cap * torch.tanh(logits_NV / cap)
    distribution = torch.distributions.Categorical(logits=logits_NV / temperature)
    return distribution.log_prob(target_N), distribution.entropy()


def draw(tokens=40, hidden=16, vocabulary=97, dtype=torch.float32, bias=True):
    stream = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(tokens, hidden, generator=stream, dtype=dtype)
    weight_VH = torch.randn(vocabulary, hidden, generator=stream, dtype=dtype)
    bias_V = torch.randn(vocabulary, generator=stream, dtype=dtype) if bias else None
    target_N = torch.randint(vocabulary, (tokens,), generator=stream)
    leaves = [x.requires_grad_() for x in (hidden_NH, weight_VH, bias_V) if x is not None]
    return hidden_NH, weight_VH, bias_V, target_N, leaves


def gradients(log_prob_N, leaves):
    weight_N = torch.randn(len(log_prob_N), generator=torch.Generator().manual_seed(1), dtype=log_prob_N.dtype)
    return torch.autograd.grad((log_prob_N * weight_N).sum(), leaves)


def assert_near(got, expected, tolerance):
    assert got.dtype == expected.dtype
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("chunks", [1, 3, 20, 97, 500])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_values_and_gradients_are_the_plain_ones_to_rounding(chunks, bias, setting, dtype, tolerance):
    *arguments, leaves = draw(bias=bias, dtype=dtype)
    log_prob_N, entropy_N = chunked_log_probs(*arguments, **setting, chunks=chunks)
    expected_N, expected_entropy_N = plain(*arguments, **setting)
    assert_near(log_prob_N, expected_N, tolerance)
    assert_near(entropy_N, expected_entropy_N, tolerance)
    assert not entropy_N.requires_grad
    for got, expected in zip(gradients(log_prob_N, leaves), gradients(expected_N, leaves), strict=True):
        assert_near(got, expected, tolerance)


@pytest.mark.parametrize("chunks", [1, 4])
@pytest.mark.parametrize("setting", SETTINGS)
def test_gradients_are_those_of_finite_differences(chunks, setting):
    *_, target_N, leaves = draw(5, 3, 11, torch.float64)
    torch.autograd.gradcheck(
        lambda h, w, b: chunked_log_probs(h, w, b, target_N, **setting, chunks=chunks)[0], leaves
    )


@pytest.mark.parametrize("chunks", [1, 4])
def test_only_the_gradients_that_are_asked_for_are_made(chunks):
    hidden_NH, weight_VH, bias_V, target_N, leaves = draw()
    expected = gradients(plain(hidden_NH, weight_VH, bias_V, target_N)[0], leaves)
    for wanted, leaf in enumerate(leaves):
        for other in leaves:
            other.requires_grad_(other is leaf)
        log_prob_N, _ = chunked_log_probs(hidden_NH, weight_VH, bias_V, target_N, chunks=chunks)
        assert_near(gradients(log_prob_N, [leaf])[0], expected[wanted], 1e-6)


@pytest.mark.parametrize("chunks", [1, 4])
def test_a_second_backward_pass_gives_the_same(chunks):
    *arguments, leaves = draw()
    log_prob_N, _ = chunked_log_probs(*arguments, cap=2.0, chunks=chunks)
    first = torch.autograd.grad(log_prob_N.sum(), leaves, retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(log_prob_N.sum(), leaves)))


@pytest.mark.parametrize("chunks", [1, 4])
def test_products_are_in_float32_under_autocast_and_for_hidden_states_in_bfloat16(chunks):
    hidden_NH, weight_VH, bias_V, target_N, _ = draw()
    rounded_NH = hidden_NH.detach().bfloat16().requires_grad_()
    exact_NH = rounded_NH.detach().float().requires_grad_()
    expected_N, expected_entropy_N = plain(exact_NH, weight_VH, bias_V, target_N)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_prob_N, entropy_N = chunked_log_probs(rounded_NH, weight_VH, bias_V, target_N, chunks=chunks)
        of_hidden, of_weight = gradients(log_prob_N, [rounded_NH, weight_VH])
    assert_near(log_prob_N, expected_N, 1e-6)
    assert_near(entropy_N, expected_entropy_N, 1e-6)
    expected_hidden, expected_weight = gradients(expected_N, [exact_NH, weight_VH])
    assert_near(of_weight, expected_weight, 1e-6)
    assert torch.equal(of_hidden, expected_hidden.bfloat16())


@pytest.mark.parametrize("chunks", [1, 4])
def test_extreme_logits_and_tokens_that_cannot_come_give_finite_results(chunks):
    hidden_NH, weight_VH, bias_V, target_N, _ = draw(bias=True)
    bias_V = bias_V.detach().clone()
    bias_V[:50] = -torch.inf
    target_N = target_N.clamp(min=50)
    huge_NH = hidden_NH.detach() * 1e4
    for given_NH in (hidden_NH.detach(), huge_NH):
        given_NH.requires_grad_()
        log_prob_N, entropy_N = chunked_log_probs(given_NH, weight_VH, bias_V, target_N, chunks=chunks)
        whole, part = plain(given_NH, weight_VH[50:], bias_V[50:], target_N - 50)
        torch.testing.assert_close(log_prob_N, whole)
        torch.testing.assert_close(entropy_N, part)
        assert all(g.isfinite().all() for g in gradients(log_prob_N, [given_NH, weight_VH]))


@pytest.mark.parametrize("chunks", [1, 4])
def test_a_token_that_is_nearly_certain_keeps_its_digits(chunks):
    """With logits of 30 a difference from their log-sum-exp would be a multiple of 2e-6."""
    weight_VH = torch.tensor([[30.0], [16.0], [15.0], [14.0], [13.0]])
    log_prob_N, _ = chunked_log_probs(torch.ones(1, 1), weight_VH, None, torch.tensor([0]), chunks=chunks)
    exact = weight_VH.double()[:, 0].log_softmax(0)[0]
    assert log_prob_N.item() == pytest.approx(exact.item(), rel=0.06)


def test_no_tokens_give_no_log_probs_and_a_gradient_of_zero():
    *arguments, leaves = draw(tokens=0)
    log_prob_N, entropy_N = chunked_log_probs(*arguments)
    assert len(log_prob_N) == len(entropy_N) == 0
    assert all((g == 0).all() for g in gradients(log_prob_N, leaves))


@pytest.mark.parametrize("setting", [{}, {"cap": 2.0}])
def test_at_the_default_sizes_a_token_takes_less_than_a_third_of_a_byte_for_each_vocabulary_entry(setting):
    tokens, hidden, vocabulary = 2048, 8, 50_021
    assert count_chunks(tokens * vocabulary) == CHUNKS
    *arguments, _ = draw(tokens, hidden, vocabulary, bias=False)
    with Memory() as memory:
        log_prob_N, _ = chunked_log_probs(*arguments, **setting)
        log_prob_N.sum().backward()
    assert memory.largest < tokens * vocabulary / 10
    weight_gradient = 4 * hidden * vocabulary
    assert 0.2 < (memory.peak - weight_gradient) / tokens / vocabulary <= 0.3


def test_few_logits_are_one_chunk_and_chunks_never_grow_without_bound():
    assert count_chunks(0) == count_chunks(2000 * 100) == count_chunks(SMALL) == 1
    assert count_chunks(512 * 151_936) == count_chunks(2**14 * 151_936) == CHUNKS
    assert 65_536 * 151_936 / count_chunks(65_536 * 151_936) <= LARGE
