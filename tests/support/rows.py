"""Rows in our formats, good and bad, and files of them."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq


def rl_row(**changes):
    row = {
        "id": "a",
        "data_source": "math_longcot_math_verify",
        "prompt": [{"role": "user", "content": "1+1?"}],
        "ability": "math",
        "reward_model": {"ground_truth": "2", "style": "rule"},
    }
    return {key: value for key, value in {**row, **changes}.items() if value is not None}


def code_row(tests):
    return rl_row(id="b", data_source="coder1", reward_model={"ground_truth": json.dumps(tests), "style": "rule"})


def sft_row(**changes):
    row = {
        "prompt": [{"role": "user", "content": "1+1?"}],
        "response": "<think>1+1=2</think>2",
        "source": "made",
        "teacher": "me",
        "difficulty": 0.5,
        "correct": True,
    }
    return {**row, **changes}


def write(path, rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def write_parquet(path, rows, **options):
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return str(path)


BAD = [
    ("rl", b"{'id': 1}", "not JSON", "is not JSON"),
    ("rl", b'{"id": "b"', "not JSON", "is not JSON"),
    ("rl", b"[" * 100_000, "not JSON", "is not JSON"),
    ("rl", b'[{"id": "b"}]', "not JSON", r"is list .*; must be one object a line"),
    ("rl", b'{"id": "\xff"}', "wrong encoding", "is not UTF-8"),
    ("rl", '{"id": "b"}'.encode("utf-16"), "wrong encoding", "is not UTF-8"),
    ("rl", b'{"id": "' + b"x" * 3000 + b'"}', "line too long", "has more than 2000 bytes"),
    ("rl", rl_row(id="b", prompt=None), "missing key", "prompt: there is no prompt among id, data_source"),
    ("rl", rl_row(id="b", reward_model={"style": "rule"}), "missing key", "no reward_model.ground_truth"),
    ("rl", rl_row(id="b", prompt=[]), "empty prompt", "prompt: is list"),
    ("rl", rl_row(id="b", prompt=" \n"), "empty prompt", "prompt: is list"),
    ("rl", rl_row(id="b", prompt=[{"role": "system", "content": "x"}]), "empty prompt", "a user's message"),
    ("rl", rl_row(id="b", prompt=7), "wrong type", r"prompt: is int 7; must be text, or a list"),
    ("rl", rl_row(id="b", prompt=[{"role": "user"}]), "wrong type", "prompt: is list"),
    ("rl", rl_row(id="b", prompt=[{"role": "robot", "content": "x"}]), "wrong type", "prompt: is list"),
    ("rl", rl_row(id="b", prompt=[{"role": "user", "content": [1]}]), "wrong type", "prompt: is list"),
    ("rl", rl_row(id="b", prompt=["x"]), "wrong type", "prompt: is list"),
    ("rl", rl_row(id=[1]), "wrong type", "id: is list"),
    (
        "rl",
        rl_row(id="b", reward_model={"ground_truth": 2, "style": "rule"}),
        "wrong type",
        "ground_truth: is int 2",
    ),
    ("rl", rl_row(id="b", reward_model={"ground_truth": "", "style": "r"}), "empty ground_truth", "is empty"),
    ("rl", rl_row(id="b", data_source="poems"), "unknown data_source", "data_source=poems has no verifier"),
    ("rl", rl_row(id="b", data_source="coder1"), "unreadable tests", "ground_truth is a int"),
    (
        "rl",
        rl_row(id="b", data_source="coder1", reward_model={"ground_truth": '{"pytest": "x"}', "style": "rule"}),
        "unreadable tests",
        "must have inputs and outputs",
    ),
    (
        "rl",
        rl_row(
            id="b",
            data_source="coder1",
            reward_model={"ground_truth": '{"inputs": [1], "outputs": 3}', "style": "rule"},
        ),
        "unreadable tests",
        "ground_truth",
    ),
    *(
        (
            "rl",
            code_row({"inputs": ["1"], "outputs": ["1"], **wrong}),
            "unreadable tests",
            f"ground_truth: .*{words}",
        )
        for wrong, words in (
            ({"timeout": "5"}, "timeout: is str '5'; must be a number"),
            ({"timeout": 0}, "timeout: is int 0"),
            ({"timeout": -2.5}, "timeout: is float -2.5"),
            ({"max_test_cases": 0}, "max_test_cases: is int 0; must be a whole number from 1"),
            ({"max_test_cases": -1}, "max_test_cases: is int -1"),
            ({"max_test_cases": "16"}, "max_test_cases: is str '16'"),
            ({"tolerance": "1e-6"}, "tolerance: is str '1e-6'; must be a number from 0 to below 1"),
            ({"tolerance": -0.1}, "tolerance: is float -0.1"),
            ({"exact": "yes"}, "exact: is str 'yes'; must be true or false"),
            ({"fn_name": "f", "outputs": ["x"]}, r"outputs.0.: is not JSON"),
            ({"fn_name": 3}, "fn_name: is int 3"),
            ({"inputs": "1"}, "inputs: is str '1'; must be a list"),
            ({"outputs": {"0": "1"}}, "outputs: is dict"),
            ({"inputs": [{"n": 1}]}, r"inputs.0.: is dict"),
            ({"functional": 3}, "functional: is int 3"),
            ({"functional": "assert f("}, "functional: "),
            ({"inputs": [5], "fn_name": "f"}, r"inputs.0.: is int 5; must be a list of arguments"),
            ({"inputs": [[5], {"x": 1}], "outputs": [1, 2], "fn_name": "f"}, r"inputs.1.: is dict"),
        )
    ),
    ("rl", rl_row(), "duplicate id", "id: 'a' is also that of .*line 1"),
    (
        "rl",
        rl_row(id="b", completions=16),
        "wrong type",
        "passed: is NoneType None; completions and passed are whole",
    ),
    ("rl", rl_row(id="b", completions=16.5, passed=3), "wrong type", "completions: is float 16.5"),
    (
        "rl",
        rl_row(id="b", completions=4, passed=5),
        "out of range",
        "passed: is 5; must be from 0 to completions, 4",
    ),
    (
        "rl",
        b'{"id": "b", "data_source": "math", "prompt": "\\ud800", "ability": "math", "reward_model": {"ground_truth": "1", "style": "r"}}',
        "wrong encoding",
        "prompt: can't be UTF-8",
    ),
    ("sft", sft_row(difficulty=1.1), "out of range", r"difficulty: is float 1.1; must be a number from 0 to 1"),
    (
        "sft",
        b'{"prompt": "x", "response": "y", "source": "s", "teacher": "t", "difficulty": NaN}',
        "out of range",
        "difficulty: is float nan",
    ),
    ("sft", sft_row(difficulty="hard"), "wrong type", "difficulty: is str 'hard'"),
    ("sft", sft_row(difficulty=True), "wrong type", "difficulty: is bool"),
    ("sft", sft_row(correct="yes"), "wrong type", "correct: is str 'yes'; must be true, false or null"),
    ("sft", sft_row(response=["x"]), "wrong type", "response: is list"),
    ("sft", sft_row(response=""), "empty response", "response: is empty"),
    ("sft", {"prompt": "x"}, "missing key", "response: there is no response among prompt"),
]
