"""Column mappings: their language, each conversion, and the mapping of each data source on rows of its card."""

import base64
import json
import pickle
from pathlib import Path

import pytest
import yaml

from klear_lab.config import ConfigError
from klear_lab.data.conversions import CONVERSIONS, plain_unpickle
from klear_lab.data.read_rows import read_rows
from klear_lab.verify.code import read_row_tests
from klear_lab.verify.math import CORRECT, judge_answer
from support.cards import CARDS, LEETCODE, ROLES, SOURCES, TESTS, private_tests
from support.rows import rl_row, sft_row, write, write_parquet

ROOT = Path(__file__).parents[3]


def read_one(tmp_path, row, columns, kind):
    rows = read_rows([write(tmp_path / "x.jsonl", [row])], columns, kind).rows
    return rows[0] if rows else None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "q"}, r"columns.response: says no column"),
        ({"promt": "q"}, r"columns.promt: unknown; did you mean prompt\?"),
        ({"prompt": {"colum": "q"}}, r"columns.prompt=.*must be a column, or"),
        ({"prompt": 3}, r"columns.prompt=3: must be a column"),
        ({"prompt": {"column": "q", "as": "yaml"}}, r"columns.prompt.as=yaml: must be one of json, first"),
        ({"prompt": {"parts": [{"colum": "q"}]}}, r"columns.prompt.parts"),
        ({"keep": ["ok"]}, r"columns.keep=\['ok'\]: must be a mapping of columns to the values"),
        ({"drop": "ok"}, r"columns.drop=ok: must be a mapping"),
        ({"keep": {1: "x"}}, r"columns.keep={1: 'x'}: must be a mapping"),
        ({"drop": []}, r"columns.drop=\[\]: must be a mapping"),
        ({"prompt": None}, r"columns.prompt=None: must be a column, or"),
        ({"prompt": ["q"]}, r"columns.prompt=\['q'\]: must be a column, or"),
        ({"prompt": {}}, r"columns.prompt={}: must be a column, or"),
        ({"prompt": {"column": None}}, r"columns.prompt.column=None: must be a column, or a dotted path"),
        ({"prompt": {"column": 3}}, r"columns.prompt.column=3: must be a column"),
        ({"prompt": {"column": ["q"]}}, r"columns.prompt.column=\['q'\]: must be a column"),
        ({"prompt": {"column": "q", "as": "json", "path": 3}}, r"columns.prompt.path=3: must be a column"),
        ({"prompt": {"column": "q", "as": {"x": 1}}}, r"columns.prompt.as={'x': 1}: must be one of json, first"),
        ({"prompt": {"column": "q", "as": [["json"]]}}, r"columns.prompt.as=\['json'\]: must be one of json"),
        ({"prompt": {"column": "q", "as": None}}, r"columns.prompt.as=None: must be one of json"),
        ({"prompt": {"columns": "q", "as": "first"}}, r"columns.prompt.columns=q: must be a list of at least one"),
        ({"prompt": {"columns": [], "as": "first"}}, r"columns.prompt.columns=\[\]: must be a list of at least"),
        ({"prompt": {"columns": ["q", 2], "as": "first"}}, r"columns.prompt.columns: 2: must be a column"),
        ({"prompt": {"parts": "prompt"}}, r"columns.prompt.parts=prompt: must be a list of at least one column"),
        ({"prompt": {"parts": {"column": "q"}}}, r"columns.prompt.parts={'column': 'q'}: must be a list"),
        ({"prompt": {"parts": [1]}}, r"columns.prompt.parts: 1: must be a column, or {column, before, after}"),
        ({"prompt": {"parts": [None]}}, r"columns.prompt.parts: None: must be a column"),
        ({"prompt": {"parts": [{"column": 1}]}}, r"columns.prompt.parts: {'column': 1}: must be a column"),
        (
            {"prompt": {"parts": [{"column": "q", "before": None}]}},
            r"columns.prompt.parts: .*'before': None}: must be a column, or {column, before, after}, which are text",
        ),
    ],
)
def test_a_mistake_in_a_mapping_is_found_before_any_row(tmp_path, columns, message):
    with pytest.raises(ConfigError, match=message):
        read_rows([write(tmp_path / "x.jsonl", [sft_row()])], columns, "sft", "skip")


def test_paths_constants_defaults_and_parts(tmp_path):
    columns = {
        "prompt": {
            "parts": ["q.text", {"column": "hint", "before": "\nHint: ", "after": "!"}, {"column": "none"}]
        },
        "response": "answers.1",
        "source": {"column": "from", "default": "unknown"},
        "teacher": {"value": "me"},
        "correct": {"column": "scores", "as": ["last", "truth"]},
        "drop": {"bad": [True, None]},
    }
    row = {
        "q": {"text": "1+1?"},
        "hint": "count",
        "none": None,
        "answers": ["3", "2"],
        "from": None,
        "scores": ["no", "Yes"],
        "bad": False,
    }
    expected = sft_row(
        prompt=[{"role": "user", "content": "1+1?\nHint: count!"}], response="2", source="unknown", difficulty=None
    )
    assert read_one(tmp_path, row, columns, "sft") == expected
    assert read_one(tmp_path, row | {"hint": ""}, columns, "sft")["prompt"] == sft_row()["prompt"]
    assert read_one(tmp_path, row | {"bad": True}, columns, "sft") is None
    for broken, reason in (
        ({"scores": []}, "unreadable column"),
        ({"hint": 3}, "wrong type"),
        ({"answers": ["3"]}, "missing key"),
    ):
        file = write(tmp_path / "y.jsonl", [row | broken])
        assert read_rows([file], columns, "sft", "skip").bad_rows == {reason: 1}


def test_rows_that_are_not_kept_are_counted_apart(tmp_path):
    file = write(
        tmp_path / "x.jsonl", [rl_row(id="a", ok="Yes"), rl_row(id="b", ok="No"), rl_row(id="c", ok="maybe")]
    )
    read = read_rows([file], {"keep": {"ok": ["Yes", "maybe"]}}, "rl")
    assert ([row["id"] for row in read.rows], read.not_kept, read.bad_rows) == (["a", "c"], 1, {})


CASES = [
    {"input": "1\n", "output": "2\n", "testtype": "stdin"},
    {"input": "2\n", "output": "3\n", "testtype": "stdin"},
]
SHAREGPT = [
    {"from": "system", "value": ""},
    {"from": "human", "value": "1+1?"},
    {"from": "gpt", "value": "<think>x</think>2"},
]
CONVERTED = [
    ("json", '{"a": 1}', {"a": 1}),
    ("first", ["x", "y"], "x"),
    ("last", ["x", "y"], "y"),
    ("text", 42, "42"),
    ("text", 42.0, "42"),
    ("text", 0.5, "0.5"),
    ("text", "042", "042"),
    *[("truth", value, True) for value in (True, 1, 1.0, "True", "yes", "Correct")],
    *[("truth", value, False) for value in (False, 0, "false", "No", "incorrect")],
    ("truth", None, None),
    ("before_last_answer", SHAREGPT, [{"role": "user", "content": "1+1?"}]),
    ("before_last_answer", [*ROLES, *ROLES], [*ROLES, ROLES[0]]),
    ("last_answer", SHAREGPT, "<think>x</think>2"),
    ("last_answer", ROLES, "<think>x</think>2"),
    ("thought_and_solution", ["think hard", "2"], "<think>\nthink hard\n</think>\n\n2"),
    ("thought_and_solution", ["<think>think hard</think>", "2"], "<think>\nthink hard\n</think>\n\n2"),
    (
        "open_thoughts_tags",
        "<|begin_of_thought|>\n\nhm\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n2\n\n<|end_of_solution|>",
        "<think>\nhm\n</think>\n\n2",
    ),
    ("input_output_tests", '{"inputs": ["1\\n"], "outputs": ["2\\n"]}', TESTS),
    (
        "input_output_tests",
        {"fn_name": "f", "inputs": [[1]], "outputs": [[2]]},
        '{"inputs": [[1]], "outputs": [[2]], "fn_name": "f"}',
    ),
    ("example_tests", [{"input": "1\n", "output": "2\n"}], TESTS),
    (
        "live_code_bench_tests",
        [json.dumps(CASES[:1]), private_tests(CASES[1:]), "{}"],
        '{"inputs": ["1\\n", "2\\n"], "outputs": ["2\\n", "3\\n"], "tolerance": 0}',
    ),
    (
        "live_code_bench_tests",
        [json.dumps(CASES[:1]), "[]", '{"func_name": "f"}'],
        '{"inputs": ["1\\n"], "outputs": ["2\\n"], "tolerance": 0, "fn_name": "f"}',
    ),
]


@pytest.mark.parametrize(("name", "theirs", "ours"), CONVERTED)
def test_conversions(name, theirs, ours):
    assert CONVERSIONS[name](theirs) == ours


def test_every_conversion_is_tried_here():
    assert {name for name, _, _ in CONVERTED} == set(CONVERSIONS)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("json", "{"),
        ("first", []),
        ("text", True),
        ("text", None),
        ("truth", "perhaps"),
        ("last_answer", SHAREGPT[:2]),
        ("before_last_answer", []),
        ("before_last_answer", [{"who": "me"}]),
        ("open_thoughts_tags", "<|begin_of_thought|>hm"),
        ("input_output_tests", ""),
        ("example_tests", None),
        ("live_code_bench_tests", ["[]", "no base64!", "{}"]),
        ("live_code_bench_tests", ["[]", base64.b64encode(b"no zlib").decode(), "{}"]),
        ("live_code_bench_tests", ["[]", private_tests(CASES)[:40], "{}"]),
    ],
)
def test_what_a_conversion_cannot_read_is_a_bad_row(tmp_path, name, theirs):
    columns = {
        "prompt": {"value": "1+1?"},
        "response": {"column": "x", "as": name},
        "source": {"value": "s"},
        "teacher": {"value": "t"},
    }
    file = write(tmp_path / "x.jsonl", [{"x": theirs}])
    with pytest.raises(ConfigError, match=f"line 1: response: {name} can't read"):
        read_rows([file], columns, "sft")
    assert read_rows([file], columns, "sft", "skip").bad_rows == {"unreadable column": 1}


class Exploit:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/klear_lab_was_here"),))


@pytest.mark.parametrize("content", [Exploit(), [Exploit()], print, {"a": 1j}, bytearray(3)])
def test_pickles_that_hold_more_than_plain_data_are_refused(content):
    with pytest.raises(pickle.UnpicklingError, match="more than plain data"):
        plain_unpickle(pickle.dumps(content))
    assert not Path("/tmp/klear_lab_was_here").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_pickles_load(protocol):
    for content in ("text", ["a", "b"], [{"input": "1", "n": 3, "x": 0.5, "ok": True, "no": None}]):
        assert plain_unpickle(pickle.dumps(content, protocol)) == content


# The data sources: each mapping on a row made by hand in the format of its card


def source(name):
    return yaml.safe_load((SOURCES / f"{name}.yaml").read_text())


USER = "user"


@pytest.mark.parametrize(("name", "kind", "theirs", "expected"), CARDS)
def test_the_mapping_of_each_source_on_a_row_of_its_card(tmp_path, name, kind, theirs, expected):
    row = read_one(tmp_path, theirs, source(name)[kind]["columns"], kind)
    if kind == "rl":
        assert (row["id"], row["prompt"][0]["content"], row["reward_model"]["ground_truth"]) == expected
    else:
        assert (row["prompt"][0]["content"], row["response"], row["source"], row["teacher"]) == expected
    parquet = write_parquet(tmp_path / "x.parquet", [theirs])
    assert read_rows([parquet], source(name)[kind]["columns"], kind).rows == [row]


def test_every_data_source_is_tried_here_and_all_have_the_same_keys():
    names = {path.stem for path in SOURCES.glob("*.yaml")} - {
        "chain",
        "functions",
        "chain_and_functions",
        "reasoning_gym",
        "klear_reasoner",  # joins five of the others
    }
    assert names == {name for name, *_ in CARDS} | {"file"}
    keys = {"files", "repository", "config", "split", "revision", "columns"}
    for name in names:
        found = source(name)
        assert set(found) == {"name", "sft", "rl", "benchmarks", "quality_order"}
        assert all(set(s) == keys for s in (found["sft"], found["rl"], *found["benchmarks"].values()) if s)


@pytest.mark.parametrize(
    "change",
    [
        {"answer": "proof"},
        {"answer": ""},
        {"answer": None},
        {"question_type": "proof"},
        {"problem_is_valid": "Incomplete"},
    ],
)
def test_problems_of_numinamath_that_cannot_be_verified_are_left_out(tmp_path, change):
    theirs = next(row for name, _, row, _ in CARDS if name == "numinamath_1_5")
    assert read_one(tmp_path, theirs | change, source("numinamath_1_5")["rl"]["columns"], "rl") is None


@pytest.mark.parametrize(
    "change", [{"official_tests_complete": False}, {"generated_checker": "def check"}, {"input_mode": "file"}]
)
def test_problems_of_codeforces_without_exact_tests_are_left_out(tmp_path, change):
    theirs = next(row for name, _, row, _ in CARDS if name == "codeforces")
    assert read_one(tmp_path, theirs | change, source("codeforces")["rl"]["columns"], "rl") is None


@pytest.mark.parametrize("name", ["lcb_v5", "lcb_v6"])
def test_the_benchmark_live_code_bench(tmp_path, name):
    columns = source("klear_code")["benchmarks"][name]["columns"]
    row = read_one(tmp_path, LEETCODE, columns, "rl")
    assert (row["id"], row["data_source"]) == ("3001", f"coder1_longcot_{name}")
    assert (
        row["prompt"][0]["content"].startswith("Add one.\n\nYou will use")
        and "def f(self" in row["prompt"][0]["content"]
    )
    assert [(c["call"], c["args"], c["expected"], c["tolerance"]) for c in read_row_tests(row).cases] == [
        ("f", [1], 2, 0),
        ("f", [3], 4, 0),
    ]
    stdin = LEETCODE | {
        "starter_code": "",
        "metadata": "{}",
        "public_test_cases": json.dumps(CASES),
        "private_test_cases": private_tests(CASES, 2),
    }
    row = read_one(tmp_path, stdin, columns, "rl")
    assert row["prompt"][0]["content"] == "Add one."
    assert [c["stdin"] for c in read_row_tests(row).cases] == ["1\n", "2\n", "1\n", "2\n"]


def test_the_benchmark_aime24_is_30_problems_whose_answers_verify():
    benchmark = source("klear_math")["benchmarks"]["aime24"]
    rows = read_rows(benchmark["files"], benchmark["columns"], "rl").rows
    assert len(rows) == len({row["id"] for row in rows}) == 30
    assert {row["data_source"] for row in rows} == {"math_longcot_math_verify_aime24"}
    for row in rows:
        truth = row["reward_model"]["ground_truth"]
        assert judge_answer(rf"So it is \boxed{{{truth}}}.", truth) == CORRECT
        assert judge_answer(rf"So it is \boxed{{{int(truth) + 1}}}.", truth) != CORRECT


def test_outputs_of_thousands_of_digits_are_read_through_the_mapping_and_judged_by_all_their_digits(tmp_path):
    large = "9" * 5000
    content = f'{{"fn_name": "f", "inputs": [[1]], "outputs": [{large}]}}'
    row = read_one(
        tmp_path,
        {**next(row for name, _, row, _ in CARDS if name == "taco"), "input_output": content},
        source("taco")["rl"]["columns"],
        "rl",
    )
    (case,) = read_row_tests(row).cases
    assert case["expected"] == 10**5000 - 1
