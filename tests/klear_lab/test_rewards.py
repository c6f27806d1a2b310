"""Rewards: what careful readers would give well-formed, malformed and odd responses."""

import pytest

from klear_lab.config import RewardConfig
from klear_lab.rl.rewards import score_response

BINARY = RewardConfig("binary", 1.0, -1.0, 0.0, 0.0)
AUTHORS = RewardConfig("authors", 1.0, -1.0, -2.0, -0.5)
FORMAT_ONLY = RewardConfig("format_only", 1.0, -1.0, 0.0, 0.0, uses_verifier=False)


def row(answer="4"):
    return {"id": "x", "data_source": "chain_exact25", "reward_model": {"ground_truth": answer, "style": "rule"}}


@pytest.mark.parametrize(
    ("response", "correct", "well_formed", "binary", "authors"),
    [
        ("<think>2*2=4</think>4", True, True, 1, 1),
        ("<think>2*2=4</think> 4\n", True, True, 1, 1),
        ("<think>2*2=4</think>5", False, True, -1, -1),
        ("<think>4</think>", False, True, -1, -1),
        ("<think>4", False, False, -1, -1.5),
        ("4", False, False, -1, -3.5),
        ("</think>4", False, False, -1, -3),
        ("<think>4</think>5</think>4", False, False, -1, -1.5),
        ("<think>4</think>4<think></think>", False, False, -1, -1.5),
        ("5<think></think>4", False, False, -1, -1),
        ("<think></think>4 or 5", False, True, -1, -1),
        ("<think></think>44", False, True, -1, -1),
        ("<think></think>\N{ARABIC-INDIC DIGIT FOUR}", False, True, -1, -1),
        ("", False, False, -1, -3.5),
    ],
)
def test_scores(response, correct, well_formed, binary, authors):
    score = score_response(response, row(), BINARY)
    assert (score.correct, score.well_formed, score.reward) == (correct, well_formed, binary)
    assert score_response(response, row(), AUTHORS).reward == authors
    assert score_response(response, row(), FORMAT_ONLY).reward == (1 if well_formed else -1)


def test_a_row_without_verifier_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="row x: data_source=chess has no verifier; one of chain"):
        score_response("<think></think>4", {**row(), "data_source": "chess"}, BINARY)
