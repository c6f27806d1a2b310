"""Draws: tokens from logits with common random numbers, and the seeds that name them.

Each (seed of a sample, position in the response, token id) has one exponentially distributed number, computed from
these three by an integer hash. The drawn token is the first to arrive in a race: the one with the largest
probability / number, which is Gumbel-max without one of its logarithms. So two policies that nearly agree draw the
same token nearly always: a draw parts only if the probabilities of the two best runners change places, while the
inverse of a cumulative distribution parts at any of the vocabulary's borders. And the numbers depend on no device,
batch or length limit, and need no state to go on.

Shapes: B sequences, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from klear_lab.sampling.types import Request

# The constants of splitmix64, as signed numbers, and one of the multipliers of lowbias32. Functions have them as
# defaults, since a script of TorchScript (sampling/joined.py) finds no constants of a module.
GOLDEN, MIX_1, MIX_2, MIX_32 = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15, 0x7FEB352D
# A 31-bit integer times this, plus half of this, is in (0, 1) even where float32 rounds the integer up to 2**31.
UNIT = 2.0**-31 * (1 - 2.0**-24)
# Rows are drawn so many numbers at a time: a processor's cache holds them, a GPU's memory several copies.
NUMBERS_AT_ONCE = {"cpu": 2**18, "cuda": 2**25}


def make_requests(prompts: Sequence[list[int]], samples: int, seed_name: str) -> list[Request]:
    """Returns a request for `samples` responses to each prompt.

    A sample's seed depends on `seed_name`, e.g. "3-rollout-17", its prompt's place in the list and its own number.
    """
    return [make_request(ids, samples, f"{seed_name}-{prompt}") for prompt, ids in enumerate(prompts)]


def make_request(prompt_ids: list[int], samples: int, seed_name: str) -> Request:
    """Returns a request for `samples` responses to a prompt, whose seeds come from `seed_name`."""
    return Request(prompt_ids, [sample_seed(f"{seed_name}-{sample}") for sample in range(samples)])


def sample_seed(name: str) -> int:
    """Returns a 63-bit seed made from a name, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def draw_tokens(
    logits_BV: Tensor, seed_B: Tensor, position_B: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """Draws a token for each row; returns token_B and log_prob_B, float32, with the temperature and before top-p.

    Tokens come from the smallest set whose probability reaches `top_p`. A `temperature` of 0 takes the likeliest
    token, and gives its log-probability at temperature 1. Rows with NaN get a log-probability of NaN.
    """
    count, vocabulary = logits_BV.shape
    if are_drawn_at_once(count, vocabulary, logits_BV.device):
        return draw_rows(logits_BV, seed_B, position_B, temperature, top_p)
    rows = max(1, numbers_at_once(logits_BV.device) // vocabulary)
    parts = zip(logits_BV.split(rows), seed_B.split(rows), position_B.split(rows), strict=True)
    drawn = [draw_rows(*part, temperature, top_p) for part in parts]
    return torch.cat([token_B for token_B, _ in drawn]), torch.cat([log_prob_B for _, log_prob_B in drawn])


def are_drawn_at_once(rows: int, vocabulary: int, device: torch.device) -> bool:
    """Tells whether so many rows are drawn in one part."""
    return rows * vocabulary <= numbers_at_once(device)


def numbers_at_once(device: torch.device) -> int:
    """Returns how many numbers are drawn at a time."""
    return NUMBERS_AT_ONCE.get(device.type, 2**25)


def draw_rows(
    logits_BV: Tensor, seed_B: Tensor, position_B: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """Does what `draw_tokens` does, all rows at once."""
    logits_BV = logits_BV.float()
    if temperature not in (0, 1):
        logits_BV = logits_BV / temperature
    probability_BV = logits_BV.softmax(-1)
    if temperature == 0:
        token_B1 = logits_BV.argmax(-1, keepdim=True)
    else:
        hash_BV = integer_hash(seed_B, position_B, logits_BV.shape[1])
        score_BV, token_B1 = race(probability_BV, hash_BV)
        if top_p < 1:
            token_B1 = draw_again_outside_nucleus(token_B1, probability_BV, score_BV, top_p)
    return token_B1[:, 0], log_prob_of(token_B1, probability_BV)


def race(probability_BV: Tensor, hash_BV: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each token's score, (B, V), and the tokens of the largest scores, token_B1."""
    score_BV = probability_BV / exponential_numbers(hash_BV)
    return score_BV, score_BV.max(-1, keepdim=True)[1]  # half of argmax's time


def log_prob_of(token_B1: Tensor, probability_BV: Tensor) -> Tensor:
    """Returns log_prob_B of tokens."""
    return probability_BV.gather(1, token_B1)[:, 0].log()


def draw_again_outside_nucleus(token_B1: Tensor, probability_BV: Tensor, score_BV: Tensor, top_p: float) -> Tensor:
    """Returns winners of the race among the nucleus, given the winners among all tokens, both (B, 1).

    The nucleus holds a token if those likelier than it, and those as likely of a lower id, have less than `top_p`
    together; the likeliest token is always in. Winners in it stay; other rows, at most about 1 - `top_p` of all,
    are sorted, so that most rows need no sort. On a GPU this waits for the device.
    """
    own_B1 = probability_BV.gather(1, token_B1)
    id_V = torch.arange(probability_BV.shape[1], device=token_B1.device)
    ahead_BV = (probability_BV > own_B1) | ((probability_BV == own_B1) & (id_V < token_B1))
    ahead_B = (probability_BV * ahead_BV).sum(-1)
    outside = ((ahead_B >= top_p) & (ahead_B > 0)).nonzero()[:, 0]
    if not len(outside):
        return token_B1
    sorted_BV, order_BV = probability_BV[outside].sort(dim=-1, descending=True, stable=True)
    in_nucleus_BV = sorted_BV.cumsum(-1) - sorted_BV < top_p
    in_nucleus_BV[:, 0] = True
    sorted_score_BV = score_BV[outside].gather(1, order_BV).where(in_nucleus_BV, -1.0)
    winner_B1 = order_BV.gather(1, sorted_score_BV.argmax(-1, keepdim=True))
    return token_B1.index_copy(0, outside, winner_B1)


def exponential_numbers(hash_BV: Tensor, unit: float = UNIT) -> Tensor:
    """Returns a number above 0 for each hash, float32 (B, V), exponentially distributed if hashes are uniform."""
    minus_uniform_BV = torch.rsub(hash_BV, -unit / 2, alpha=unit)
    return minus_uniform_BV.log1p_().neg_()


def integer_hash(seed_B: Tensor, position_B: Tensor, vocabulary: int) -> Tensor:
    """Returns a hash of (seed, position, token id) from 0 to 2**31 - 1, int32 (B, V), the same on every device.

    A 64-bit hash of seed and position gives each row a mask and an odd multiplier, and each token id has a 32-bit
    hash of its own; what is left to do for each pair is two multiplications. Shifts are arithmetic: the first copy
    of the sign makes 31 bits of 32, which costs nothing here and saves masking them.
    """
    return pair_hash(seed_B, position_B, token_hashes(vocabulary, seed_B.device))


def pair_hash(
    seed_B: Tensor, position_B: Tensor, token_hash_V: Tensor, golden: int = GOLDEN, multiplier: int = MIX_32
) -> Tensor:
    """Does what `integer_hash` does, with the hashes of the token ids."""
    row_B1 = mix_64(seed_B + position_B * golden)[:, None]
    hash_BV = row_B1.to(torch.int32) ^ token_hash_V
    hash_BV *= multiplier
    hash_BV ^= hash_BV >> 15
    hash_BV *= (row_B1 >> 32).to(torch.int32) | 1
    hash_BV ^= hash_BV >> 16
    return hash_BV


@lru_cache(maxsize=2)
def token_hashes(vocabulary: int, device: torch.device) -> Tensor:
    """Returns a hash of each token id, int32 (V,)."""
    return mix_64((torch.arange(vocabulary, device=device) + 1) * GOLDEN).view(torch.int32)[::2].clone()


def mix_64(value: Tensor, first: int = MIX_1, second: int = MIX_2) -> Tensor:
    """Returns splitmix64's hash of int64 values: a flipped bit flips every other one half the time.

    Shifts copy the sign, which masks take off again.
    """
    value = (value ^ (value >> 30 & 0x3FFFFFFFF)) * first
    value = (value ^ (value >> 27 & 0x1FFFFFFFFF)) * second
    return value ^ (value >> 31 & 0x1FFFFFFFF)
