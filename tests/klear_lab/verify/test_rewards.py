"""Rewards: what careful readers would give well-formed, malformed and odd responses, and what is kept apart."""

import json

import pytest

from klear_lab.config import ConfigError, RewardConfig
from klear_lab.verify.registry import Verdict
from klear_lab.verify.rewards import format_fault, reasons, score_responses, shape
from klear_lab.verify.verifiers import Verifiers

PAPER = RewardConfig("paper", 1.0, -1.0)
AUTHORS = RewardConfig("authors", 1.0, -1.0, unclosed_think=-0.5, no_think=-2.0)
FORMAT_ONLY = RewardConfig("format_only", 1.0, -1.0, uses_verifier=False)


def row(answer="4"):
    return {"id": "x", "data_source": "chain_exact25", "reward_model": {"ground_truth": answer, "style": "rule"}}


def score_response(response, config):
    with Verifiers([row()], config, workers=1, sandbox="auto") as verifiers:
        (score,) = score_responses([response], [row()], config, verifiers)
    return score


@pytest.mark.parametrize(
    ("response", "reason", "paper", "authors"),
    [
        ("<think>2*2=4</think>4", "correct", 1, 1),
        ("<think>2*2=4</think> 4\n", "correct", 1, 1),
        ("<think>2*2=4</think>5", "wrong", -1, -1),
        ("<think>4</think>", "wrong", -1, -1),
        ("<think>4", "unclosed_think", -1, -0.5),
        ("4", "unclosed_think", -1, -0.5),
        ("", "unclosed_think", -1, -0.5),
        ("</think>4", "no_think", -1, -2),
        ("2*2=4</think>4", "no_think", -1, -2),
        ("<think>4</think>5</think>4", "malformed_think", -1, -1),
        ("<think>4</think>4<think></think>", "malformed_think", -1, -1),
        ("<think><think>4</think>4", "malformed_think", -1, -1),
        ("5<think></think>4", "malformed_think", -1, -1),
        ("</think>4<think>", "malformed_think", -1, -1),
        ("<think></think>4 or 5", "wrong", -1, -1),
        ("<think></think>44", "wrong", -1, -1),
        ("<think></think>\N{ARABIC-INDIC DIGIT FOUR}", "wrong", -1, -1),
    ],
)
def test_scores(response, reason, paper, authors):
    score = score_response(response, PAPER)
    well_formed = not reason.endswith("think")
    assert (score.correct, score.well_formed, score.reason) == (reason == "correct", well_formed, reason)
    assert score.raw == float(score.correct)
    assert score.reward == paper
    assert score_response(response, AUTHORS).reward == authors
    assert score_response(response, FORMAT_ONLY).reward == (1 if well_formed else -1)


def test_a_reward_without_verifier_still_logs_what_is_right():
    score = score_response("<think></think>5", FORMAT_ONLY)
    assert (score.reward, score.correct, score.raw, score.reason) == (1, False, 0, "wrong")


@pytest.mark.parametrize(
    ("code", "raw", "reward"), [("soft", 0.25, -0.5), ("soft", 1, 1), ("hard", 0.25, -1), ("hard", 1, 1)]
)
def test_soft_and_hard_shape_one_raw_score(code, raw, reward):
    config = RewardConfig("paper", 1.0, -1.0, code=code)
    score = shape(Verdict(raw, "wrong"), None, config)
    assert (score.raw, score.correct, score.reward) == (raw, raw == 1, reward)


def test_every_fault_is_a_documented_reason():
    assert {format_fault(text) for text in ("", "</think>", "<think></think></think>")} < set(reasons())


def test_a_row_without_verifier_is_an_error_that_names_it():
    with pytest.raises(
        ConfigError, match=r"row x: data_source=chess has no verifier; it must contain one of chain, coder"
    ):
        Verifiers([{**row(), "data_source": "chess"}], PAPER, workers=1, sandbox="auto")


def test_a_row_with_broken_tests_is_an_error_that_names_it():
    broken = {"id": "y", "data_source": "coder1_longcot", "reward_model": {"ground_truth": json.dumps({"a": 1})}}
    with pytest.raises(ConfigError, match="row y: ground_truth has the keys a: must have inputs and outputs"):
        Verifiers([broken], PAPER, workers=1, sandbox="auto")
