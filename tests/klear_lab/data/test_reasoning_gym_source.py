"""reasoning-gym's tasks as RL rows: right answers score 1 after a trip through JSON, wrong ones don't."""

import builtins
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.config import ConfigError
from klear_lab.data.reasoning_gym_source import reasoning_gym_rows
from klear_lab.verify.reasoning_gym import make_scorer, make_task, pack, unpack, verify

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

# One of most kinds; arc_agi and rearc compare by tuples, decimal_arithmetic and time_intervals by their settings.
TASKS = [
    *("chain_sum", "basic_arithmetic", "gcd", "leg_counting", "simple_equations", "polynomial_equations"),
    *("countdown", "mini_sudoku", "knights_knaves", "zebra_puzzles", "syllogism", "shortest_path", "arc_agi"),
    *("rearc", "decimal_arithmetic", "time_intervals", "word_sorting", "base_conversion", "list_functions"),
]


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answer_scores_one_and_another_does_not(task):
    entries = list(make_task(task, {"size": 3, "seed": 7}))
    rows = reasoning_gym_rows(task, 3, 7)
    for row, entry in zip(json.loads(json.dumps(rows)), entries, strict=True):
        truth = row["reward_model"]["ground_truth"]
        assert row["prompt"] == [{"role": "user", "content": entry["question"]}]
        assert verify(entry["answer"], truth) == verify(f"\n{entry['answer']} ", truth) == 1
        for wrong in ("", "I don't know", "__import__('os')", "9" * 30):
            assert 0 <= verify(wrong, truth) < 1


def test_rows_have_the_released_format_and_are_the_same_for_the_same_seed():
    rows = reasoning_gym_rows("chain_sum", 4, 1)
    assert [row["id"] for row in rows] == [f"chain_sum-1-{i}" for i in range(4)]
    assert set(rows[0]) == {"id", "data_source", "prompt", "ability", "reward_model"}
    assert rows[0]["data_source"] == "reasoning_gym_chain_sum"
    assert isinstance(rows[0]["reward_model"]["ground_truth"], str)
    assert rows == reasoning_gym_rows("chain_sum", 4, 1)
    assert rows[0]["prompt"] != reasoning_gym_rows("chain_sum", 4, 2)[0]["prompt"]


def test_a_tasks_settings_reach_the_problems_and_the_verifier():
    settings = {"min_num_decimal_places": 3, "max_num_decimal_places": 3, "precision": 6}
    row = reasoning_gym_rows("decimal_arithmetic", 1, 0, settings)[0]
    truth = row["reward_model"]["ground_truth"]
    assert json.loads(truth)["config"] == settings
    scorer = make_scorer("decimal_arithmetic", json.dumps(settings, sort_keys=True))
    assert scorer.config.max_num_decimal_places == 3
    terms = reasoning_gym_rows("chain_sum", 1, 0, {"min_terms": 9, "max_terms": 9})[0]["prompt"][0]["content"]
    assert sum(terms.count(sign) for sign in "+-") >= 8


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("chain_sums", {}, "reasoning-gym has no such task; nearest: chain_sum"),
        ("chain_sum", {"terms": 3}, "task=chain_sum with .*terms"),
        ("chain_sum", {"min_terms": -1}, "task=chain_sum with"),
    ],
)
def test_an_unknown_task_or_setting_is_an_error(task, settings, message):
    with pytest.raises(ConfigError, match=message):
        reasoning_gym_rows(task, 1, 0, settings)


def test_an_answer_that_the_verifier_cannot_digest_scores_zero(monkeypatch):
    truth = reasoning_gym_rows("gcd", 1, 0)[0]["reward_model"]["ground_truth"]
    scorer = make_scorer("gcd", "{}")
    monkeypatch.setattr(scorer, "score_answer", lambda *_: 1 / 0)
    assert verify("1", truth) == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text().filter(lambda key: not key.startswith("__")), inner)
        | st.dictionaries(st.integers() | st.tuples(st.integers(), st.integers()), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_tuples_and_keys_come_through_json(value):
    assert unpack(json.loads(json.dumps(pack(value)))) == value


def test_without_reasoning_gym_the_error_says_what_to_install(monkeypatch):
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "reasoning_gym":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="needs reasoning-gym; pip install reasoning-gym"):
        reasoning_gym_rows("chain_sum", 1, 0)
