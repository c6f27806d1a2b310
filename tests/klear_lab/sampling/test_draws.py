"""Draws: the hash behind them, the distribution of what is drawn, the nucleus, and how rarely near policies part."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from klear_lab.sampling import draws
from klear_lab.sampling.draws import draw_tokens, exponential_numbers, integer_hash, make_requests


def counting(rows, value=0):
    """Seeds 0, 1, ... and one position."""
    return torch.arange(rows), torch.full((rows,), value)


def drawn(logits_BV, seed_B, position_B, temperature=1.0, top_p=1.0):
    return draw_tokens(logits_BV, seed_B, position_B, temperature, top_p)[0]


def slow_hash(seed, position, token):
    """The hash in Python's integers: what any device must find."""
    wrap_32, wrap_64 = 2**32 - 1, 2**64 - 1

    def mix(value):
        value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & wrap_64
        value = (value ^ value >> 27) * 0x94D049BB133111EB & wrap_64
        return value ^ value >> 31

    def fold(value, shift):
        copies = (wrap_32 << 32 - shift) & wrap_32 if value >> 31 else 0
        return value ^ (value >> shift | copies)

    row = mix((seed + position * 0x9E3779B97F4A7C15) & wrap_64)
    own = mix((token + 1) * 0x9E3779B97F4A7C15 & wrap_64) & wrap_32
    value = fold(((row & wrap_32) ^ own) * 0x7FEB352D & wrap_32, 15)
    return fold(value * (row >> 32 | 1) & wrap_32, 16)


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**20))
def test_the_hash_is_the_same_in_other_arithmetic(seed, position):
    found = integer_hash(torch.tensor([seed]), torch.tensor([position]), 50)[0].tolist()
    assert found == [slow_hash(seed, position, token) for token in range(50)]


def test_numbers_depend_on_nothing_but_seed_position_and_token():
    whole = integer_hash(torch.arange(6), torch.arange(6) * 7, 300)
    part = integer_hash(torch.tensor([4]), torch.tensor([28]), 100)
    assert torch.equal(whole[4:5, :100], part)


@pytest.fixture(scope="module")
def uniform_SPV():
    """Uniform numbers of 40 seeds, 40 positions and 500 tokens."""
    seed, position = torch.arange(40).repeat_interleave(40), torch.arange(40).repeat(40)
    return integer_hash(seed, position, 500).view(40, 40, 500).double() / 2**31


def test_numbers_are_uniform(uniform_SPV):
    for bins in (16, 1000):
        counts = torch.bincount((uniform_SPV.flatten() * bins).long(), minlength=bins)
        assert chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("dimension", [0, 1, 2], ids=["seeds", "positions", "tokens"])
@pytest.mark.parametrize("distance", [1, 2, 16])
def test_neighbours_numbers_are_independent(uniform_SPV, dimension, distance):
    size = uniform_SPV.shape[dimension] - distance
    one, other = uniform_SPV.narrow(dimension, 0, size), uniform_SPV.narrow(dimension, distance, size)
    cells = (one * 16).long() * 16 + (other * 16).long()
    assert chisquare(torch.bincount(cells.flatten(), minlength=256).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("flipped", ["seed", "position", "token"])
def test_every_bit_of_an_input_changes_every_bit_of_the_hash_half_the_time(flipped):
    count = 2000
    seed, position = torch.arange(count) * 0x123456789ABCD, torch.arange(count) % 512
    token = torch.arange(count) % 512
    vocabulary = 1024

    def bits(seed, position, token):
        hashes = integer_hash(seed, position, vocabulary).gather(1, token[:, None])
        return hashes >> torch.arange(31) & 1

    plain = bits(seed, position, token)
    for bit in range(62 if flipped == "seed" else 9):
        changed = {"seed": seed, "position": position, "token": token}
        changed[flipped] = changed[flipped] ^ (1 << bit)
        share = (bits(**changed) != plain).double().mean(0)
        assert ((share - 0.5).abs() < 5 * 0.5 / count**0.5).all()


def test_no_number_is_zero_or_infinite():
    extremes = torch.tensor([0, 1, 2**31 - 129, 2**31 - 128, 2**31 - 64, 2**31 - 1], dtype=torch.int32)
    numbers = exponential_numbers(extremes)
    assert numbers.dtype == torch.float32
    assert (numbers > 0).all() and numbers.isfinite().all() and (numbers.diff() >= 0).all()


def test_tokens_follow_their_probabilities():
    logits = torch.tensor([2.0, -1.0, 0.0, 1.0, -3.0, 0.5])
    counts = torch.bincount(drawn(logits.repeat(50_000, 1), *counting(50_000), temperature=0.7), minlength=6)
    expected = (logits / 0.7).double().softmax(-1) * 50_000
    assert chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_tokens_of_the_nucleus_follow_their_probabilities():
    logits = torch.tensor([0.3, 0.25, 0.2, 0.1, 0.08, 0.04, 0.03]).log()[[3, 6, 0, 5, 1, 4, 2]]
    counts = torch.bincount(drawn(logits.repeat(50_000, 1), *counting(50_000), top_p=0.8), minlength=7)
    assert counts[[1, 3, 5]].sum() == 0
    expected = torch.tensor([0.1, 0.3, 0.25, 0.2], dtype=torch.float64) / 0.85 * 50_000
    assert chisquare(counts[[0, 2, 4, 6]].numpy(), expected.numpy()).pvalue > 1e-3


@given(
    st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 2.5]) | st.floats(-4, 4), min_size=2, max_size=8),
    st.floats(0.02, 0.99),
    st.floats(0.2, 3),
)
def test_top_p_draws_the_races_winner_among_the_smallest_set_that_reaches_it(logits, top_p, temperature):
    logits_V = torch.tensor(logits)
    probability = (logits_V / temperature).softmax(-1).tolist()
    order = sorted(range(len(logits)), key=lambda i: (-probability[i], i))
    sums = [sum(probability[j] for j in order[:n]) for n in range(len(order))]
    # Where a sum lies at top_p rounding may decide either way.
    assume(all(abs(total - top_p) > 1e-5 for total in sums))
    nucleus = [token for token, before in zip(order, sums, strict=True) if before < top_p]
    outside = [token for token in order if token not in nucleus]
    # A logit of minus infinity takes a token out of the race and leaves the others' numbers as they are.
    alone_V = logits_V.index_fill(0, torch.tensor(outside, dtype=torch.long), -torch.inf)
    key = counting(200)
    want = drawn(alone_V.repeat(200, 1), *key, temperature)
    found, log_prob_B = draw_tokens(logits_V.repeat(200, 1), *key, temperature, top_p)
    assert found.tolist() == want.tolist()
    torch.testing.assert_close(log_prob_B, (logits_V / temperature).log_softmax(-1)[found], rtol=1e-4, atol=1e-5)


def test_a_top_p_of_zero_takes_the_first_of_the_likeliest_tokens():
    assert set(
        drawn(torch.tensor([[0.0, 1.0, 1.0, -1.0]]).repeat(100, 1), *counting(100), top_p=0.0).tolist()
    ) == {1}


def test_of_equal_tokens_the_nucleus_holds_those_of_lower_ids():
    assert set(drawn(torch.zeros(300, 8), *counting(300), top_p=0.5).tolist()) == {0, 1, 2, 3}
    assert set(drawn(torch.zeros(300, 8), *counting(300), top_p=1.0).tolist()) == {*range(8)}


def test_a_temperature_of_zero_takes_the_first_likeliest_token_and_tells_its_log_prob_at_temperature_1():
    logits_BV = torch.tensor([[0.0, 3.0, 3.0], [1.0, 0.0, -1.0]])
    token_B, log_prob_B = draw_tokens(logits_BV, *counting(2), 0.0, 0.5)
    assert token_B.tolist() == [1, 0]
    torch.testing.assert_close(log_prob_B, logits_BV.log_softmax(-1)[[0, 1], [1, 0]])


def test_a_token_without_probability_is_never_drawn():
    logits = torch.full((2000, 40), -torch.inf)
    logits[:, [7, 30]] = torch.tensor([0.0, -2.0])
    assert set(drawn(logits, *counting(2000)).tolist()) == {7, 30}


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_how_many_rows_are_drawn_at_once_changes_nothing(monkeypatch, top_p):
    logits_BV = torch.randn(37, 60, generator=torch.Generator().manual_seed(0))
    whole = draw_tokens(logits_BV, *counting(37, 5), 1.3, top_p)
    monkeypatch.setitem(draws.NUMBERS_AT_ONCE, "cpu", 600)
    for part, want in zip(draw_tokens(logits_BV, *counting(37, 5), 1.3, top_p), whole, strict=True):
        torch.testing.assert_close(part, want, rtol=0, atol=0)


def test_nearly_equal_policies_part_hardly_more_often_than_any_two_draws_must():
    generator = torch.Generator().manual_seed(0)
    logits_BV = 5 * torch.randn(2000, 1000, generator=generator)
    other_BV = logits_BV + 0.01 * torch.randn(2000, 1000, generator=generator)
    parted = (drawn(logits_BV, *counting(2000)) != drawn(other_BV, *counting(2000))).double().mean()
    least = (logits_BV.softmax(-1) - other_BV.softmax(-1)).abs().sum(-1).mean() / 2
    assert least < 0.004
    assert parted < 2 * least + 3 * (2 * least / 2000) ** 0.5


def test_rows_with_nan_have_a_log_prob_of_nan():
    logits = torch.zeros(3, 5)
    logits[1, 2] = torch.nan
    for temperature, top_p in ((1.0, 1.0), (1.0, 0.5), (0.0, 1.0)):
        _, log_prob_B = draw_tokens(logits, *counting(3), temperature, top_p)
        assert log_prob_B.isnan().tolist() == [False, True, False]


def test_a_samples_seed_depends_on_the_name_its_prompt_and_its_number_alone():
    requests = make_requests([[1], [2]], 3, "3-rollout-17")
    assert [request.prompt_ids for request in requests] == [[1], [2]]
    seeds = [seed for request in requests for seed in request.seeds]
    assert len(set(seeds)) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert make_requests([[9]], 2, "3-rollout-17")[0].seeds == requests[0].seeds[:2]
    assert make_requests([[1]], 1, "3-rollout-18")[0].seeds != requests[0].seeds[:1]
