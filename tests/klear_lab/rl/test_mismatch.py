"""Corrections for a sampler that isn't the learner: their factors, their bounds, and where they enter the loss."""

import math

import pytest
import torch

from klear_lab.config import ConfigError
from klear_lab.rl.mismatch import Correction, correct
from klear_lab.validation import parse

LOG_MISMATCH = torch.tensor([0.4, 0.6, 1.0, 1.9, 6.0]).log()


def factors(name, low, high, lengths=(5,)):
    return correct(LOG_MISMATCH, [*lengths], Correction(name, low, high))


def test_without_a_correction_every_factor_is_one_also_where_the_sampler_tells_nothing():
    found = correct(torch.full((3,), math.nan), [3], Correction("none", 0.0, math.inf))
    assert found.factor.tolist() == [1, 1, 1]
    assert not (found.low | found.high).any()


def test_truncated_weights_are_cut_at_the_bound():
    found = factors("tis", 0.0, 2.0)
    assert found.factor.tolist() == pytest.approx([0.4, 0.6, 1.0, 1.9, 2.0])
    assert found.high.tolist() == [False, False, False, False, True]
    assert not found.low.any()


def test_icepop_drops_tokens_beyond_either_bound():
    found = factors("icepop", 0.5, 5.0)
    assert found.factor.tolist() == pytest.approx([0.0, 0.6, 1.0, 1.9, 0.0])
    assert (found.low.tolist(), found.high.tolist()) == ([True] + [False] * 4, [False] * 4 + [True])


def test_the_sequence_mask_takes_the_product_over_each_response():
    found = factors("sequence_mask", 0.5, 3.0, lengths=(2, 2, 1))
    assert found.factor.tolist() == pytest.approx([0.0, 0.0, 1.9, 1.9, 0.0])
    assert (found.low.tolist(), found.high.tolist()) == ([True, True, False, False, False], [False] * 4 + [True])


def test_an_equal_sampler_is_never_corrected():
    for name in ("none", "tis", "icepop", "sequence_mask"):
        low, high = {"icepop": (0.5, 5.0)}.get(name, (0.0, 2.0))
        found = correct(torch.zeros(4), [1, 3], Correction(name, low, high))
        assert found.factor.tolist() == [1.0] * 4


def test_a_correction_has_its_published_bounds_where_none_are_set(config):
    bounds = {name: Correction.of(config(f"rl.mismatch_correction={name}").rl) for name in ("tis", "icepop")}
    assert (bounds["tis"].high, bounds["icepop"].low, bounds["icepop"].high) == (2.0, 0.5, 5.0)
    assert Correction.of(config("rl.mismatch_correction=sequence_mask").rl).high == 3.0
    set_one = config("rl.mismatch_correction=icepop", "rl.mismatch_low=0.25").rl
    assert (Correction.of(set_one).low, Correction.of(set_one).high) == (0.25, 5.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["rl.mismatch_high=2"], "rl.mismatch_high=2.0: must be null with rl.mismatch_correction=none"),
        (["rl.mismatch_correction=tis", "rl.mismatch_low=0.5"], "rl.mismatch_low=0.5: must be null with"),
        (
            ["rl.mismatch_correction=icepop", "rl.mismatch_low=2", "rl.mismatch_high=1"],
            "rl.mismatch_low=2.0, mismatch_high=1.0: the bounds of rl.mismatch_correction=icepop would be 2 and 1",
        ),
        (["rl.mismatch_correction=icepop", "rl.mismatch_low=6"], "would be 6 and 5, which leaves no token"),
        (["rl.mismatch_correction=icepop", "rl.mismatch_high=0.4"], "would be 0.5 and 0.4, which leaves no token"),
        (["rl.mismatch_correction=sequence_mask", "rl.mismatch_low=3"], "which leaves no token"),
        (["rl.mismatch_correction=tis", "rl.mismatch_high=0"], "rl.mismatch_high=0.0: must be above 0"),
    ],
)
def test_bounds_that_nothing_would_read_are_refused(composed_config, settings, words):
    with pytest.raises(ConfigError, match=words):
        parse(composed_config(*settings))
