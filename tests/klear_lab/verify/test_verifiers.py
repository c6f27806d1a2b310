"""Verifiers: mixed batches in order, code rewards from real runs, tests drawn by seed, broken ones stop the run."""

import dataclasses
import json
import shutil
import time

import pytest

from klear_lab.config import RewardConfig
from klear_lab.data.reasoning_gym_source import reasoning_gym_rows
from klear_lab.sandbox import isolation as sandbox_isolation
from klear_lab.sandbox.pool import SandboxUnavailable
from klear_lab.verify import reasoning_gym
from klear_lab.verify.code import CodeVerifier
from klear_lab.verify.exact import ExactVerifier
from klear_lab.verify.math import MathVerifier
from klear_lab.verify.processes import VerifierProcesses
from klear_lab.verify.reasoning_gym import PuzzleVerifier, puzzle_verdict
from klear_lab.verify.registry import Verdict, verifier_of
from klear_lab.verify.rewards import score_responses
from klear_lab.verify.verifiers import Verifiers

pytestmark = pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap (apt-get install bubblewrap)")


def config(**changes):
    return RewardConfig("paper", 1.0, -1.0, test_seconds=2.0, **changes)


def chain_row():
    return {"id": "chain", "data_source": "chain_exact", "reward_model": {"ground_truth": "4"}}


def math_row():
    return {"id": "math", "data_source": "math_longcot_math_verify25", "reward_model": {"ground_truth": "42"}}


def code_row(cases=4, **content):
    tests = {"inputs": [f"{i}\n" for i in range(cases)], "outputs": [f"{2 * i}" for i in range(cases)], **content}
    return {
        "id": "code",
        "data_source": "coder1_longcot_lcbv5",
        "reward_model": {"ground_truth": json.dumps(tests)},
    }


def response(program):
    return f"<think>Hm.</think>\n```python\n{program}\n```"


RIGHT = response("print(2 * int(input()))")
HALF = response("n = int(input())\nprint(2 * n if n < 2 else 0)")


def score(responses, rows, reward, draw=None):
    with Verifiers(rows, reward, workers=2, sandbox="auto") as verifiers:
        return score_responses(responses, rows, reward, verifiers, draw)


def test_a_mixed_batch_comes_back_in_order():
    batch = [
        (RIGHT, code_row(), 1.0, "correct"),
        ("<think></think>4", chain_row(), 1.0, "correct"),
        (HALF, code_row(), 0.5, "wrong"),
        (r"<think></think>\boxed{42}", math_row(), 1.0, "correct"),
        ("<think></think>5", chain_row(), 0.0, "wrong"),
        (response("while True: pass"), code_row(cases=1), 0.0, "timeout"),
        (r"<think></think>\boxed{41}", math_row(), 0.0, "wrong"),
        ("<think></think>print(1)", code_row(), 0.0, "no_program"),
        (response("print(1"), code_row(), 0.0, "error"),
        (response("x = [0] * 10**9"), code_row(), 0.0, "memory"),
        ("print(1)", code_row(), 0.0, "unclosed_think"),
        (RIGHT, code_row(), 1.0, "correct"),
    ]
    scores = score([b[0] for b in batch], [b[1] for b in batch], config())
    assert [(s.raw, s.reason) for s in scores] == [b[2:] for b in batch]
    assert [s.reward for s in scores] == [2 * b[2] - 1 for b in batch]


def test_soft_and_hard_rewards_come_from_the_same_run():
    rows = [code_row()] * 2
    soft = score([RIGHT, HALF], rows, config(code="soft"))
    hard = score([RIGHT, HALF], rows, config(code="hard"))
    assert [s.reward for s in soft] == [1, 0]
    assert [s.reward for s in hard] == [1, -1]
    assert [s.raw for s in soft] == [s.raw for s in hard] == [1, 0.5]


def test_a_row_may_limit_its_time_itself():
    slow = response("import time\ntime.sleep(0.7)\nprint(2 * int(input()))")
    scores = score([slow, slow], [code_row(cases=1), code_row(cases=1, timeout=0.2)], config())
    assert [s.reason for s in scores] == ["correct", "timeout"]


def inputs_seen(reward, row, draw):
    """The numbers that a program is given, by way of a program that is right for one of them at a time."""
    probes = [response(f"n = int(input())\nprint(2 * n if n == {i} else -1)") for i in range(40)]
    scores = score(probes, [row] * 40, reward, draw)
    return [i for i, s in enumerate(scores) if s.raw > 0]


def test_test_cases_are_drawn_with_the_seed_and_shared_by_a_row_s_responses():
    row = code_row(cases=40)
    seen = inputs_seen(config(max_test_cases=16), row, "0-tests-1")
    assert len(seen) == 16
    assert seen == inputs_seen(config(max_test_cases=16), row, "0-tests-1")
    assert seen != inputs_seen(config(max_test_cases=16), row, "1-tests-1")
    assert len(inputs_seen(config(max_test_cases=16), code_row(cases=40, max_test_cases=5), "0")) == 5
    assert len(inputs_seen(config(max_test_cases=None), row, "0")) == 40


def test_evaluation_runs_all_test_cases():
    assert len(inputs_seen(config(max_test_cases=16), code_row(cases=40), None)) == 40


def test_assertions_of_released_rows_are_judged():
    row = code_row()
    functional = (
        "def check(candidate):\n    assert candidate(n=3) == 6\n    assert candidate(4) == 8\n\ncheck(S().f)"
    )
    row["reward_model"] = {"ground_truth": json.dumps({"functional": functional})}
    right = response("class S:\n    def f(self, n: int) -> int:\n        return 2 * n")
    half = response("class S:\n    def f(self, n):\n        return 6")
    cheat = response("import os\nclass S:\n    def f(self, n):\n        os._exit(0)")
    assert [s.raw for s in score([right, half, cheat], [row] * 3, config())] == [1, 0.5, 0]


def test_without_bubblewrap_a_run_that_requires_it_stops_before_it_trains(monkeypatch):
    monkeypatch.setattr(sandbox_isolation.shutil, "which", lambda name: None)
    sandbox_isolation.find_isolation.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match="sandbox=required: bubblewrap is not installed"):
            Verifiers([code_row()], config(), workers=1, sandbox="required")
        Verifiers([chain_row()], config(), workers=1, sandbox="required").__exit__()
    finally:
        sandbox_isolation.find_isolation.cache_clear()


@pytest.mark.parametrize(
    ("data_source", "kind"),
    [
        ("chain_exact", ExactVerifier),
        ("math_longcot_math_verify", MathVerifier),
        ("math_longcot_math_verify_aime2024", MathVerifier),
        ("coder1_longcot", CodeVerifier),
        ("coder1_longcot_lcbv6", CodeVerifier),
        ("reasoning_gym_chain_sum", PuzzleVerifier),
        ("reasoning_gym_simple_math", PuzzleVerifier),
    ],
)
def test_the_data_source_chooses_the_verifier_by_containment(data_source, kind):
    assert verifier_of({"id": 1, "data_source": data_source}) is kind


def test_no_rows_no_verdicts():
    with Verifiers([chain_row()], config(), workers=1, sandbox="auto") as verifiers:
        assert verifiers.verify([], [], None) == []
        assert verifiers.verify(["4"], [chain_row()], None) == [Verdict(1.0, "correct")]


def test_tasks_of_reasoning_gym_are_judged_by_their_own_verifiers():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    rows = [reasoning_gym_rows(task, 1, 0)[0] for task in ("chain_sum", "number_sorting")]
    assert {verifier_of(row) for row in rows} == {PuzzleVerifier}
    right = [json.loads(row["reward_model"]["ground_truth"])["entry"]["answer"] for row in rows]
    answers = [*right, f"it is {right[0]}", "I don't know"]
    scores = score([f"<think></think>{a}" for a in answers], [*rows, rows[0], rows[1]], config())
    found = [(s.correct, s.reason) for s in scores]
    assert found == [(True, "correct"), (True, "correct"), (False, "wrong"), (False, "wrong")]
    assert 0 < scores[2].raw < 1 and scores[3].raw == 0
    assert -1 < scores[2].reward < 1


def never_done(answer, ground_truth):
    """Stands in for a task's verifier that hangs at one answer."""
    if answer == "hang":
        time.sleep(60)
    return reasoning_gym.verify(answer, ground_truth)


def test_a_verifier_of_reasoning_gym_that_hangs_finds_its_answer_unparsable():
    pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")
    judge = dataclasses.replace(reasoning_gym.REASONING_GYM, verdict=never_done)
    truth = next(iter(judge.known))[1]
    with VerifierProcesses(judge, 2, seconds=1.0) as opened:
        found = opened.judge([("42", truth), ("hang", truth), ("43", truth)])
    assert found == [1.0, None, 0.0]
    assert puzzle_verdict(None) == Verdict(0.0, "unparsable")
