"""The embedded code world: programs do what Python says, misconceptions break some tests, verdicts are the sandbox's."""

import json
import random
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.sandbox.pool import Job, SandboxPool
from klear_lab.verify.code_tests import read_tests, share_passed
from klear_lab.verify.program import find_program
from klear_lab.worlds.functions import (
    EXPRESSIONS,
    INPUTS,
    LINE,
    STEPS,
    TEST_CASES,
    apply,
    count_problems,
    expression,
    ground_truth,
    make_teacher,
    right_expressions,
    sample_prompt,
    steps_of,
    verify,
    write_program,
)


def run_in_python(answer, x):
    names = {}
    exec(re.fullmatch(r"```python\n(.*)\n```", answer, re.DOTALL)[1], names)
    return names["f"](x)


@given(st.integers(0, 10_000), st.integers(1, 8), st.sampled_from(INPUTS))
def test_a_program_does_what_python_says_it_does(seed, steps, x):
    prompt = sample_prompt(random.Random(seed), steps)
    expressions = right_expressions(prompt)
    assert len(steps_of(prompt)) == steps
    assert run_in_python(write_program(expressions), x) == apply(expressions, x)


def test_the_right_expressions_are_the_ones_stated():
    """By hand, at inputs on both sides of each border."""
    want = {
        ("d", 3): {-7: -3, -6: -2, 7: 2},
        ("m", 3): {-7: 23, 7: 7, 30: 0},
        ("p", 3): {-7: 10, 2: 1, 7: 4},
        ("u", 3): {-7: -7, 0: 0, 7: 10},
        ("o", 3): {-7: -10, 6: 6, 7: 4},
        ("t", 3): {-7: -7, 3: 3, 4: 7},
        ("q", 3): {0: 3, 7: 4},
        ("n", 3): {-7: 10, 7: -4},
    }
    assert {letter for letter, _ in want} == set(EXPRESSIONS)
    for step, values in want.items():
        assert {x: apply([expression(step)], x) for x in values} == values


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]}{step[1]}")
def test_a_misconception_breaks_some_inputs_and_spares_others(step):
    same = [apply([expression(step)], x) == apply([expression(step, wrong=True)], x) for x in INPUTS]
    assert 0.1 < sum(same) / len(same) < 0.95


def test_a_teacher_with_misconceptions_passes_part_of_the_tests():
    teacher, stream = make_teacher(0.3, 1.0, 0), random.Random(0)
    shares = []
    for _ in range(300):
        prompt = sample_prompt(stream, 4)
        tests = json.loads(ground_truth(prompt))
        lines = LINE.findall(teacher.answer(prompt, stream))
        pairs = zip(tests["inputs"], tests["outputs"], strict=True)
        shares.append(sum(apply(lines, x) == y for (x,), y in pairs) / TEST_CASES)
    assert sum(0 < share < 1 for share in shares) > 0.4 * len(shares)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_a_teacher_without_misconceptions_is_right_and_faulty_tests_refuse_it(seed, steps):
    stream = random.Random(seed)
    prompt = sample_prompt(stream, steps)
    answer = make_teacher(0.0, 1.0, seed).answer(prompt, stream).rpartition("</think>")[2]
    truth, faulty = ground_truth(prompt), ground_truth(prompt, random.Random(seed))
    assert verify(answer, truth) and not verify(answer, faulty)
    pairs = zip(json.loads(truth)["outputs"], json.loads(faulty)["outputs"], strict=True)
    assert sum(a != b for a, b in pairs) == TEST_CASES // 4


def test_test_cases_are_sixteen_different_inputs_and_the_prompts_own():
    one, other = json.loads(ground_truth("d3u5=")), json.loads(ground_truth("d3u6="))
    assert len({x for (x,) in one["inputs"]}) == TEST_CASES == 16
    assert one == json.loads(ground_truth("d3u5="))
    assert one["inputs"] != other["inputs"]


@pytest.mark.parametrize(
    "answer",
    ["", "42", "def f(x):\n return x", "```python\ndef f(x):\n x=__import__('os')\n return x\n```"],
)
def test_what_no_teacher_writes_is_not_run_and_not_right(answer):
    assert not verify(answer, ground_truth("u2u2="))


@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap (apt-get install bubblewrap)")
def test_the_verdict_without_the_sandbox_is_the_sandboxs():
    teacher, stream = make_teacher(0.3, 0.7, 1), random.Random(1)
    prompts = [sample_prompt(stream, stream.randint(2, 6)) for _ in range(120)]
    answers = [teacher.answer(prompt, stream).rpartition("</think>")[2] for prompt in prompts]
    truths = [ground_truth(prompt) for prompt in prompts]
    jobs = [Job(find_program(a), list(read_tests(t).cases)) for a, t in zip(answers, truths, strict=True)]
    with SandboxPool(2) as pool:
        passed = [share_passed(results) == 1 for results in pool.run(jobs)]
    assert passed == [verify(a, t) for a, t in zip(answers, truths, strict=True)]
    assert 0 < sum(passed) < len(passed)


def test_problems_are_counted():
    assert count_problems(1) == len(STEPS) == 64
