"""Verifier processes: no wait without an end, whatever happens to the pool behind them."""

import dataclasses
import time

import pytest
from pebble import ProcessFuture

from klear_lab.config import VerifierUnavailable
from klear_lab.verify import processes
from klear_lab.verify.math import MATH
from klear_lab.verify.processes import VerifierProcesses

PAIR = (r"\boxed{42}", "42")


def never_ends(answer, ground_truth):
    """Stands in for a verifier that hangs at everything but the answers that it is tried out on."""
    while (answer, ground_truth) not in MATH.known:
        time.sleep(0.1)
    return MATH.known[answer, ground_truth]


@pytest.fixture
def verifiers():
    with VerifierProcesses(dataclasses.replace(MATH, verdict=never_ends), 1, seconds=0.5) as opened:
        yield opened


def test_an_answer_that_takes_too_long_is_unparsable(verifiers):
    assert verifiers.judge([PAIR]) == ["unparsable"]


def test_a_verdict_that_never_comes_is_an_error_with_a_name(verifiers, monkeypatch):
    monkeypatch.setattr(verifiers.pool, "schedule", lambda *_, **__: ProcessFuture())
    monkeypatch.setattr(processes, "START_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(VerifierUnavailable, match="math-verify: no verdict in 2 s.*its processes hang"):
        verifiers.judge([PAIR])
    assert time.monotonic() - started < 10


def test_a_pool_that_breaks_with_a_task_in_hand_is_an_error_with_a_name(verifiers, monkeypatch):
    def break_and_lose_the_task(*_, **__):
        verifiers.pool.stop()
        return ProcessFuture()

    monkeypatch.setattr(verifiers.pool, "schedule", break_and_lose_the_task)
    started = time.monotonic()
    with pytest.raises(VerifierUnavailable, match="the processes that verify answers die.*try pip install"):
        verifiers.judge([PAIR])
    assert time.monotonic() - started < 10


def test_a_pool_that_broke_before_takes_no_answer(verifiers):
    verifiers.pool.stop()
    with pytest.raises(VerifierUnavailable, match="the processes that verify answers die"):
        verifiers.judge([PAIR])


def test_a_pool_that_does_not_end_is_left_behind(verifiers, monkeypatch, caplog):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(verifiers.pool, "join", lambda: time.sleep(3))
        verifiers.__exit__()
    assert "its processes don't end" in caplog.text
