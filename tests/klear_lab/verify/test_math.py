"""Math answers: equivalent forms are right, near misses and tricks aren't, and nothing hangs, leaks or lies."""

import dataclasses
import json
import os
import random
import threading
import time
from pathlib import Path

import pytest
from joblib import Parallel, delayed

from klear_lab.config import VerifierUnavailable
from klear_lab.verify.math import CORRECT, MATH, UNPARSABLE, WRONG, ascii_digits, boxes, judge_answer
from klear_lab.verify.processes import VerifierProcesses

AIME = Path(__file__).parents[4] / "shared" / "benchmarks" / "aime24.jsonl"
# The 30 answers of AIME 2024, for checkouts without the file above; compared with it where it is there.
AIME_ANSWERS = (
    *("73", "236", "45", "33", "80", "55", "699", "127", "902", "468", "601", "23", "321", "211", "315"),
    *("204", "25", "809", "116", "104", "294", "540", "197", "480", "113", "371", "385", "110", "104", "721"),
)
FORMS = (
    *(r"\boxed{%s}", r"$\boxed{%s}$", r"\[\boxed{%s}\]", r"$$\boxed{%s}$$", r"\fbox{%s}", r"\boxed{\text{%s}}"),
    *(r"\boxed{\boxed{%s}}", r"\boxed{%s.0}", r"\boxed{0%s}", r"\boxed{%s + 0}", r"\boxed{\frac{%s}{1}}"),
    *(r"\boxed{m+n=%s}", r"\boxed{ %s }", r"\boxed{$%s$}", r"\boxed{2 \cdot %s - %s}", "The answer is %s."),
    *("**%s**", "%s", "$%s$", r"\(%s\)", "# Answer: %s", "**Final answer:** $%s$", "Hence $n = %s$.", "%s."),
    *("First 12 and 17.\n\nThus the answer is %s.", r"So $\boxed{%s}$. Check: $\boxed{%s}$ is right."),
)
NEAR_MISSES = (
    *(r"\boxed{%s1}", r"\boxed{1%s}", r"\boxed{-%s}", r"\boxed{%s.1}", r"\boxed{%s\%%}", r"\boxed{%s^2}"),
    *(r"\boxed{%s!}", r"\boxed{%s.0001}", r"\boxed{\frac{1}{%s}}", r"\boxed{%s+1}", r"\boxed{%s, 1}"),
    *(
        r"\boxed{%s} or \boxed{1}",
        r"\boxed{%s \text{ or } 1}",
        "%s or 1",
        "not %s",
        "Thus there are %s such numbers.",
        r"\boxed{x > %s}",
    ),
    *(r"\boxed{[%s, 1000]}", r"\boxed{1 = %s}", r"\boxed{%s = 1}", r"\boxed{\sqrt{%s}}", r"\boxed{%s \pm 1}"),
)


@pytest.fixture(scope="module")
def verifiers():
    with VerifierProcesses(MATH, 2, seconds=3.0) as opened:
        yield opened


def fill(form, answer):
    return form % ((answer,) * form.replace("%%", "").count("%s"))


def test_the_answers_are_those_of_the_benchmark():
    if not AIME.exists():
        pytest.skip("shared/benchmarks/aime24.jsonl isn't beside this checkout")
    rows = [json.loads(line) for line in AIME.read_text().splitlines()]
    assert tuple(row["meta"]["answer"] for row in rows) == AIME_ANSWERS


@pytest.mark.parametrize("form", FORMS)
def test_every_aime_answer_verifies_against_itself(verifiers, form):
    assert set(verifiers.judge([(fill(form, a), a) for a in AIME_ANSWERS])) == {CORRECT}


@pytest.mark.parametrize("form", NEAR_MISSES)
def test_no_near_miss_verifies(verifiers, form):
    assert CORRECT not in verifiers.judge([(fill(form, a), a) for a in AIME_ANSWERS])


@pytest.mark.parametrize(
    ("answer", "ground_truth", "verdict"),
    [
        (r"\boxed{42}, \boxed{43}", "42", WRONG),
        (r"\boxed{1}\boxed{2}\boxed{3}\boxed{42}", "42", WRONG),
        (r"\boxed{1, 2, 3, 42}", "42", WRONG),
        ("1, 2, 3, 42", "42", WRONG),
        ("the candidates are 1, 2, 3, 42", "42", UNPARSABLE),
        ("42 or 43", "42", UNPARSABLE),
        ("either $42$ or $43$", "42", UNPARSABLE),
        ("Is it 42?", "42", UNPARSABLE),
        (r"\boxed{42?}", "42", WRONG),
        (r"\boxed{42} = \boxed{42.0} = \boxed{\frac{84}{2}}", "42", CORRECT),
        (" ".join(rf"\boxed{{{n}}}" for n in range(1000)), "42", WRONG),
        (" ".join(rf"\boxed{{42+{n}-{n}}}" for n in range(17)), "42", WRONG),
        (r"\boxed{}", "42", UNPARSABLE),
        ("", "42", UNPARSABLE),
        ("\n \n", "42", UNPARSABLE),
        (r"\boxed{42", "42", UNPARSABLE),
        (r"\boxed{The answer}", "42", WRONG),
        (r"\boxed{x}", "42", WRONG),
        ("\N{FULLWIDTH DIGIT FOUR}\N{FULLWIDTH DIGIT TWO}", "42", CORRECT),
        ("\\boxed{\N{ARABIC-INDIC DIGIT FOUR}\N{ARABIC-INDIC DIGIT TWO}}", "42", CORRECT),
        ("\\boxed{4\N{SUPERSCRIPT TWO}}", "42", WRONG),
        ("\\boxed{4\N{SUPERSCRIPT TWO}}", "16", CORRECT),
        ("\\boxed{\N{CIRCLED DIGIT FOUR}\N{CIRCLED DIGIT TWO}}", "42", UNPARSABLE),
        (r"\boxed{4 2}", "6", WRONG),
        (r"\boxed{42 43}", "85", WRONG),
        (r"\boxed{1 000}", "1000", CORRECT),
        (r"\boxed{1{,}000}", "1000", CORRECT),
        (r"\boxed{1,000}", "1000", CORRECT),
        (r"\boxed{43=42}", "42", WRONG),
        (r"\boxed{y=43=42}", "42", WRONG),
        (r"\boxed{6\cdot 7=42}", "42", CORRECT),
        (r"\boxed{\int_0^{42} 1 dx}", "42", WRONG),
        (r"\boxed{\sum_{k=1}^{42} 1}", "42", WRONG),
        (r"\boxed{\max(42, 1)}", "42", WRONG),
        (r"\boxed{\int_0^1 x dx}", r"\int_0^1 x dx", CORRECT),
        (r"\boxed{[0, \infty)}", r"[0, \infty)", CORRECT),
        (r"\boxed{\infty}", r"\infty", CORRECT),
        (r"\boxed{-\infty}", r"\infty", WRONG),
        (r"\boxed{42^\circ}", "42", CORRECT),
        (r"\boxed{42\text{ cm}}", "42", CORRECT),
        (r"\boxed{\frac{1}{2}}", "0.5", CORRECT),
        (r"\boxed{\dfrac12}", r"\frac{1}{2}", CORRECT),
        (r"\boxed{0.333}", r"\frac{1}{3}", WRONG),
        (r"\boxed{x^2-1}", "(x-1)(x+1)", CORRECT),
        (r"\boxed{(1,2)}", "(1,2)", CORRECT),
        (r"\boxed{(2,1)}", "(1,2)", WRONG),
        (r"\boxed{\{2,1\}}", r"\{1,2\}", CORRECT),
        (r"\boxed{y=2x+1}", "y=2x+1", CORRECT),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", CORRECT),
        (r"\boxed{\text{Monday}}", r"\text{Monday}", CORRECT),
        (r"\boxed{B}", "B", CORRECT),
        (r"\boxed{A}", "B", WRONG),
    ],
)
def test_what_a_careful_reader_would_say(verifiers, answer, ground_truth, verdict):
    assert verifiers.judge([(answer, ground_truth)]) == [verdict]


@pytest.mark.parametrize("answer", [r"1e\infty", r"4 \cdot \sqrt{4} \infty", r"\boxed{42 + 1e!\infty}"])
def test_nothing_infinite_is_a_finite_answer_in_whatever_order_sympy_tries_its_rules(answer, monkeypatch):
    import sympy
    from sympy.core.cache import clear_cache

    seed = sympy.core.random.seed
    for order in range(400):  # without our check about 1 in 200 orders finds them equal
        monkeypatch.setattr(sympy.core.random, "seed", lambda _, order=order: seed(order))
        clear_cache()
        assert judge_answer(answer, "9217") != CORRECT


def test_only_the_text_after_the_thought_is_ever_looked_at():
    from klear_lab.config import RewardConfig
    from klear_lab.verify.rewards import score_responses
    from klear_lab.verify.verifiers import Verifiers

    row = {"id": "a", "data_source": "math_longcot_math_verify25", "reward_model": {"ground_truth": "42"}}
    config = RewardConfig("paper", 1.0, -1.0)
    responses = [
        r"<think>\boxed{42}</think>I am done.",
        r"<think>\boxed{42}</think>",
        r"<think>Hm.</think>\boxed{42}",
        r"<think>\boxed{41}</think>\boxed{42}",
        r"<think>Hm.</think>\boxed{41}</think>\boxed{42}",
    ]
    with Verifiers([row], config, workers=1, sandbox="auto") as opened:
        scores = score_responses(responses, [row] * 5, config, opened)
    assert [s.reason for s in scores] == ["unparsable", "unparsable", "correct", "correct", "malformed_think"]
    assert [s.reward for s in scores] == [-1, -1, 1, 1, -1]


def test_an_answer_that_takes_forever_is_unparsable_and_the_others_keep_their_places(verifiers):
    forever = r"\boxed{10^{10^{10}}}"
    started = time.monotonic()
    answers = [r"\boxed{1}", forever, r"\boxed{42}", r"\boxed{9!!!!!!!!!!!!}", r"\boxed{42.0}"]
    assert verifiers.judge([(a, "42") for a in answers]) == [WRONG, UNPARSABLE, CORRECT, UNPARSABLE, CORRECT]
    assert time.monotonic() - started < 20


def test_off_the_main_thread_right_answers_stay_right(verifiers):
    found = []
    thread = threading.Thread(target=lambda: found.extend(verifiers.judge([(r"\boxed{\frac{84}{2}}", "42")])))
    thread.start()
    thread.join()
    assert found == [CORRECT]


def judge_in_a_worker_of_joblib(ground_truth):
    with VerifierProcesses(MATH, 1) as opened:
        return opened.judge([(r"\boxed{42}", ground_truth)])


def test_arms_that_run_in_joblib_can_verify():
    judged = Parallel(n_jobs=2)(delayed(judge_in_a_worker_of_joblib)(g) for g in ("42", "43"))
    assert judged == [[CORRECT], [WRONG]]


def die_once(answer, ground_truth):
    """Stands in for `judge_answer`: kills its worker the first time it sees an answer that names a file."""
    if answer.startswith("/"):
        file = Path(answer)
        if not file.exists():
            file.touch()
            os._exit(1)
        return CORRECT
    return judge_answer(answer, ground_truth)


def die(answer, ground_truth):
    """Stands in for `judge_answer`: kills its worker at one answer."""
    if answer == "poison":
        os._exit(1)
    return judge_answer(answer, ground_truth)


def with_verdict(function):
    """math-verify's judge with a stand-in for `judge_answer`."""
    return dataclasses.replace(MATH, verdict=function)


def test_a_worker_that_dies_costs_one_retry(tmp_path):
    pairs = [(r"\boxed{42}", "42"), (str(tmp_path / "died"), "42"), (r"\boxed{43}", "42")]
    with VerifierProcesses(with_verdict(die_once), 2) as verifiers:
        assert verifiers.judge(pairs) == [CORRECT, CORRECT, WRONG]


def test_an_answer_that_kills_every_worker_is_unparsable():
    with VerifierProcesses(with_verdict(die), 2) as verifiers:
        assert verifiers.judge([("poison", "42"), (r"\boxed{42}", "42")]) == [UNPARSABLE, CORRECT]


def always_wrong(answer, ground_truth):
    """Stands in for `judge_answer` of a broken installation."""
    return WRONG


def never_there(answer, ground_truth):
    """Stands in for `judge_answer` where math-verify can't be imported."""
    raise ImportError("no antlr")


@pytest.mark.parametrize("broken", [always_wrong, never_there])
def test_a_broken_installation_stops_the_run(broken):
    with pytest.raises(VerifierUnavailable, match="its installation is broken; try pip install 'math-verify"):
        VerifierProcesses(with_verdict(broken), 1)


def test_a_module_that_is_not_there_stops_the_run():
    with pytest.raises(VerifierUnavailable, match="its installation is broken"):
        VerifierProcesses(dataclasses.replace(MATH, modules=("no_such_module",)), 1)


def garbage(generator):
    pieces = [
        *(
            "\\boxed{",
            "}",
            "{",
            "\\frac",
            "42",
            "4",
            "^",
            "_",
            "\\sqrt",
            "x",
            "=",
            "+",
            "-",
            ",",
            "(",
            ")",
            "[",
            "]",
        ),
        *(
            "\\text{",
            " or ",
            "\n",
            "$",
            "\\left",
            "\\right",
            "!",
            "%",
            "\\%",
            "\\infty",
            "\N{FULLWIDTH DIGIT FOUR}",
        ),
        *("\\cdot", "\\begin{matrix}", "&", "\\\\", "1e", ".", "\0", "\ud800", "é", "the answer is "),
    ]
    return "".join(generator.choice(pieces) for _ in range(generator.randrange(1, 25)))


@pytest.mark.slow
def test_ten_thousand_garbage_answers_neither_hang_nor_leak(verifiers):
    generator = random.Random(0)
    answers = [garbage(generator) for _ in range(10_000)]
    verdicts = verifiers.judge([(a, "9217") for a in answers])
    assert len(verdicts) == 10_000
    assert set(verdicts) <= {WRONG, UNPARSABLE}
    assert verifiers.judge([(r"\boxed{42}", "42")]) == [CORRECT]
    workers = verifiers.pool._pool_manager.worker_manager.workers
    assert len(workers) <= 2


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{a}\boxed{\frac{1}{2}}", ["a", r"\frac{1}{2}"]),
        (r"\boxed{\boxed{1}}", ["1"]),
        (r"\boxed {\{1\}}", [r"\{1\}"]),
        (r"\boxed{1", []),
        ("", []),
    ],
)
def test_boxes(text, found):
    assert boxes(text) == found


def test_digits_of_all_scripts_are_digits_and_superscripts_are_not():
    assert ascii_digits("a1\N{DEVANAGARI DIGIT SEVEN}\N{SUPERSCRIPT TWO}½") == "a17\N{SUPERSCRIPT TWO}½"
