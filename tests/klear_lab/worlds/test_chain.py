"""The embedded math world: arithmetic, teachers, rows."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.config import ConfigError, DifficultyFilterConfig
from klear_lab.data.prepare import load_prepared, prepare_data, save_prepared
from klear_lab.worlds.chain import FACTS, compute, make_teacher, sample_prompt, solve, verify


def oracle(prompt):
    value = int(prompt[0])
    for op, digit in zip(prompt[1:-1:2], prompt[2:-1:2], strict=True):
        value = eval(f"({value} {op} {digit}) % 10")
    return str(value)


@given(st.integers(0, 10_000), st.integers(1, 9))
def test_solve_agrees_with_python(seed, steps):
    prompt = sample_prompt(random.Random(seed), steps)
    assert (len(prompt), solve(prompt)) == (2 * steps + 2, oracle(prompt))


@given(st.integers(0, 1000), st.integers(1, 8))
def test_a_teacher_without_misconceptions_writes_right_traces(seed, steps):
    prompt = sample_prompt(random.Random(seed), steps)
    response = make_teacher(0.0, 1.0, 0).answer(prompt, random.Random(seed))
    thought, _, answer = response.removeprefix("<think>").partition("</think>")
    lines = thought.split(";")
    assert len(lines) == steps
    assert all(compute(int(x[0]), x[1], int(x[2])) == int(x[4]) for x in lines)
    assert verify(answer, solve(prompt))


def test_a_misconception_is_always_the_same_wrong_value():
    teacher = make_teacher(0.2, 1.0, 3)
    assert len(teacher.wrong) == 60
    assert all(compute(*fact) != value for fact, value in teacher.wrong.items())
    fact = next(iter(teacher.wrong))
    prompt = f"{fact[0]}{fact[1]}{fact[2]}="
    answers = {teacher.answer(prompt, random.Random(i))[-1] for i in range(20)}
    assert answers == {str(teacher.wrong[fact])}


def test_a_misconception_is_written_at_its_rate():
    teacher = make_teacher(1.0, 0.7, 0)
    assert set(teacher.wrong) == set(FACTS)
    stream = random.Random(0)
    wrong = sum(not verify(teacher.answer("3+4=", stream)[-1], "7") for _ in range(4000)) / 4000
    assert wrong == pytest.approx(0.7, abs=0.03)


def prepared(config, *overrides):
    return prepare_data(config(*overrides))


def prompts(rows):
    return [row["prompt"][0]["content"] for row in rows]


def test_training_and_benchmarks_are_disjoint(config):
    data = prepared(
        config, "data.sft_rows=2000", "data.rl_rows=500", "data.benchmark_rows=100", "data.filter_rl=false"
    )
    sets = [set(prompts(r)) for r in (data.sft_rows, data.rl_rows, *data.benchmarks.values())]
    assert len(set().union(*sets)) == sum(map(len, sets)) == 2700


def test_benchmarks_are_what_their_names_say_and_their_answers_right(config):
    data = prepared(config)
    assert [*data.benchmarks] == ["chain6", "chain8"]
    for name, rows in data.benchmarks.items():
        assert all(len(p) == 2 * int(name[5:]) + 2 for p in prompts(rows))
        assert all(row["reward_model"]["ground_truth"] == oracle(p) for row, p in zip(rows, prompts(rows)))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_rows(config, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        save_prepared(prepared(config), tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 5
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    loaded = load_prepared(tmp_path / "a")
    assert dataclasses.replace(loaded, sft_rows=[*loaded.sft_rows]) == prepared(config)
    assert prompts(prepared(config, "data.seed=1").rl_rows) != prompts(prepared(config).rl_rows)


def test_more_sft_rows_leave_rl_prompts_and_benchmarks_alone(config):
    few, many = prepared(config), prepared(config, "data.sft_rows=500")
    assert (few.rl_rows, few.benchmarks) == (many.rl_rows, many.benchmarks)


def test_easy_and_hard_split_the_rows_and_hard_rows_are_more_often_wrong(config):
    rows = prepared(config, "data.sft_rows=3000").sft_rows
    easy = prepared(config, "data.sft_rows=3000", "difficulty_filter=easy").sft_rows
    hard = prepared(config, "data.sft_rows=3000", "difficulty_filter=hard").sft_rows
    boundary = sum(row["difficulty"] == 0.5 for row in rows)
    assert len(easy) + len(hard) == len(rows) + boundary
    assert max(r["difficulty"] for r in easy) <= 0.5 <= min(r["difficulty"] for r in hard)
    # Longer chains are harder for judge and teacher alike.
    assert sum(r["correct"] for r in easy) / len(easy) > sum(r["correct"] for r in hard) / len(hard)


def test_a_filter_that_leaves_nothing_is_an_error_that_names_it(config):
    c = config()
    c.difficulty_filter = DifficultyFilterConfig("none", 0.001, 0.002)
    with pytest.raises(ConfigError, match="difficulty_filter=none: left none of 200 sft rows .*widen or drop it"):
        prepare_data(c)


def test_asking_for_more_problems_than_exist_is_an_error(config):
    with pytest.raises(ConfigError, match="there are only 9000 problems"):
        prepared(config, "data_source.sft_steps=[2,2]", "data.sft_rows=9000")
