"""reasoning-gym's tasks as RL rows: right answers score 1 after a trip through JSON, wrong ones don't."""

import builtins
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.config import ConfigError
from klear_lab.data.read_rows import read_rows
from klear_lab.data.reasoning_gym_source import reasoning_gym_rows
from klear_lab.verify.reasoning_gym import (
    EXECUTED_BY_PYTHON,
    EXECUTED_BY_SYMPY,
    PuzzleVerifier,
    is_harmless,
    make_scorer,
    make_task,
    pack,
    unpack,
    verify,
)
from support.rows import rl_row, write

reasoning_gym = pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

# One of most kinds; arc_agi and rearc compare by tuples, decimal_arithmetic and time_intervals by their settings.
TASKS = [
    *("chain_sum", "basic_arithmetic", "gcd", "leg_counting", "simple_equations", "polynomial_equations"),
    *("countdown", "mini_sudoku", "knights_knaves", "zebra_puzzles", "syllogism", "shortest_path", "arc_agi"),
    *("rearc", "decimal_arithmetic", "time_intervals", "word_sorting", "base_conversion", "list_functions"),
    *(task for task in (*EXECUTED_BY_PYTHON, *EXECUTED_BY_SYMPY) if task != "countdown"),
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


def puzzle(**changes):
    """The ground truth of a problem, with some of its keys changed, or left out where they are None."""
    truth = json.loads(reasoning_gym_rows("chain_sum", 1, 0)[0]["reward_model"]["ground_truth"])
    return json.dumps({key: value for key, value in {**truth, **changes}.items() if value is not None})


def check(truth):
    PuzzleVerifier.check({"id": "a", "reward_model": {"ground_truth": truth, "style": "rule"}})


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ("42", 'ground_truth is int 42; must be an object of {"task"'),
        ("forty-two", "ground_truth is not JSON"),
        ("[" * 100_000, "ground_truth is not JSON"),
        ("[]", "ground_truth is list"),
        (puzzle(task=None), "task: is NoneType None; must be the name of a task"),
        (puzzle(task=["chain_sum"]), "task: is list"),
        (puzzle(task="chain_sums"), "task=chain_sums: reasoning-gym has no such task; nearest: chain_sum"),
        (puzzle(task="composite"), "task=composite with"),
        (puzzle(config=None), "config: is NoneType None; must be an object"),
        (puzzle(config={"terms": 3}), "task=chain_sum with {'terms': 3"),
        (puzzle(config={"min_terms": "3"}), "task=chain_sum with {'min_terms': '3'"),
        (puzzle(entry="42"), "entry: is str '42'; must be an object"),
        (puzzle(entry={"metadata": {}}), "entry: has metadata; must have the answer and an object of metadata"),
        (puzzle(entry={"answer": "42", "metadata": 3}), "entry: has answer, metadata; must have the answer"),
        (puzzle(entry={"answer": "42", "metadata": {"__pairs__": 3}}), "entry: holds a __pairs__ or __tuple__"),
        ('{"task": "chain_sum", "task": "gcd"}', "ground_truth has the key 'task' twice"),
    ],
)
def test_a_ground_truth_that_no_answer_can_meet_is_a_bad_row(tmp_path, truth, words):
    with pytest.raises(ConfigError, match=f"row a: {re.escape(words)}"):
        check(truth)
    row = rl_row(data_source="reasoning_gym_x", reward_model={"ground_truth": truth, "style": "rule"})
    file = write(tmp_path / "a.jsonl", [row])
    with pytest.raises(ConfigError, match=f"a.jsonl, line 1: ground_truth: row a: {re.escape(words)}"):
        read_rows([file], None, "rl")


@pytest.mark.parametrize("task", TASKS)
def test_rows_of_our_making_pass_the_check(task):
    for row in reasoning_gym_rows(task, 2, 0):
        PuzzleVerifier.check(row)


def test_without_reasoning_gym_the_form_alone_is_checked(monkeypatch):
    monkeypatch.setattr("klear_lab.verify.reasoning_gym.find_spec", lambda name: None)
    check(puzzle(task="unknown"))
    with pytest.raises(ConfigError, match="config: is NoneType"):
        check(puzzle(config=None))


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


RUNS_A_PROGRAM = (
    "__import__('pathlib').Path('executed').touch()",
    "[__import__('pathlib').Path('executed').touch()]",
    "1 + __import__('pathlib').Path('executed').touch()",
    "(lambda: __import__('pathlib').Path('executed').touch())()",
    "[x for x in [open('executed', 'w')]]",
    "3! + open('executed', 'w').fileno()",
    "open('executed', 'w')",
    "S('open(\\'executed\\', \\'w\\')')",
    "sqrt.__globals__",
    "(1).__class__",
    'f\'{open("executed", "w")}\'',
    "''.join([open('executed', 'w').name])",
)


@pytest.mark.parametrize("task", [*EXECUTED_BY_PYTHON, *EXECUTED_BY_SYMPY])
def test_no_answer_is_executed_as_a_program(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    truth = reasoning_gym_rows(task, 1, 0)[0]["reward_model"]["ground_truth"]
    assert [verify(answer, truth) for answer in RUNS_A_PROGRAM] == [0.0] * len(RUNS_A_PROGRAM)
    assert not list(tmp_path.iterdir())


def test_all_tasks_that_execute_an_answer_are_known():
    sources = Path(reasoning_gym.__file__).parent.rglob("*.py")
    found = {
        s.stem for s in sources if re.search(r"(?<!def )\b(eval|exec|parse_expr|sympify)\(answer", s.read_text())
    }
    assert found == {*EXECUTED_BY_PYTHON, *EXECUTED_BY_SYMPY}


@pytest.mark.parametrize(
    "answer", ["x**2/2 + C", "-1.5*exp(-x) + log(Abs(x)) + 2e-3", ".5*x", "2*(3 + 4)/7", "5!"]
)
def test_formulas_are_read(answer):
    assert is_harmless(answer, "simple_integration")


@pytest.mark.parametrize("answer", ["1" * 100_000 + "@", "1.5e3" * 10_000 + "@", "(" * 100_000 + "a.b"])
def test_a_long_answer_is_refused_at_once(answer):
    assert not is_harmless(answer, "countdown")


@pytest.mark.parametrize("answer", ["[[1, 2], [3, 4]]", "['a', 'b']", "1 2 3", "_ Q\nQ _", "-1"])
def test_values_and_plain_text_are_read(answer):
    assert is_harmless(answer, "spiral_matrix")
