"""Rows as people have them: what doesn't matter is passed over, what is nearly ours is offered as a mapping that can
be typed as it stands, and what can't be used is a bad row or a message, never a crash."""

import datetime
import json
import re
import shlex
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.errors import HydraException

from klear_lab.config import ConfigError
from klear_lab.data.hub import read_hub_rows
from klear_lab.data.read_rows import read_rows
from klear_lab.data.sources import load_source
from klear_lab.validation import explain
from support.rows import rl_row, sft_row, write

RL = "data_source=file", "sft.steps=0"
SFT = "data_source=file", "rl.steps=0"
MESSAGES = [{"role": "user", "content": "1+1?"}]
ANSWERED = [*MESSAGES, {"role": "assistant", "content": "2"}]
SHARE_GPT = [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "<think>x</think>2"}]


def files_setting(kind, file):
    return f"data_source.{kind}.files=['{file}']"


def offered(message):
    """The settings of a message's mapping, as a shell reads them."""
    return shlex.split(re.search(r"map it with (.*); fix it, or data.on_bad_row=skip", message)[1])


def follow(config, given, most=3):
    """The source that is read once what the messages offer is typed, at most so many times."""
    typed = []
    for _ in range(most):
        try:
            return load_source(config(*given, *typed)), typed
        except ConfigError as error:
            typed += offered(str(error))
    raise AssertionError(typed)


# Columns that aren't used

YEAR_20000 = 18_030 * 365 * 86_400
UNUSED = {
    "far date": pa.array([10_000_000] * 2, pa.date32()),
    "far time": pa.array([YEAR_20000] * 2, pa.timestamp("s")),
    "nanoseconds": pa.array([1] * 2, pa.timestamp("ns")),
    "unknown zone": pa.array([0] * 2, pa.timestamp("s", tz="Mars/Phobos")),
    "odd offset": pa.array([0] * 2, pa.timestamp("s", tz="+25:99")),
    "long duration": pa.array([2**62] * 2, pa.duration("s")),
    "not UTF-8": pa.array([b"\xff", b"\xfe"]).view(pa.string()),
    "bytes": pa.array([b"\xff"] * 2),
    "nulls": pa.nulls(2),
    "decimal": pa.array([Decimal("1.5")] * 2),
    "far dates in a list": pa.array([[10_000_000]] * 2, pa.list_(pa.date32())),
}


def with_column(tmp_path, values, name="created"):
    table = pa.Table.from_pylist([rl_row(id="a"), rl_row(id="b")]).append_column(name, values)
    pq.write_table(table, tmp_path / "a.parquet")
    return str(tmp_path / "a.parquet")


@pytest.mark.parametrize("values", UNUSED.values(), ids=UNUSED)
def test_columns_that_are_not_used_do_not_matter(tmp_path, values):
    read = read_rows([with_column(tmp_path, values)], {}, "rl")
    assert read.rows == [rl_row(id="a"), rl_row(id="b")]


@pytest.mark.parametrize("kind", ["far date", "unknown zone", "nanoseconds"])
def test_nor_do_those_of_a_repository(tmp_path, kind, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "Repo").mkdir()
    with_column(tmp_path / "Repo", UNUSED[kind])
    assert [row["id"] for row in read_hub_rows(str(tmp_path / "Repo"), {}, "rl").rows] == ["a", "b"]


def test_fields_of_a_struct_beside_the_one_that_is_used_do_not_matter(tmp_path):
    dates = pa.array([10_000_000] * 2, pa.date32())
    meta = pa.StructArray.from_arrays([pa.array(["2", "3"]), dates], ["answer", "created"])
    file = with_column(tmp_path, meta, "meta")
    columns = {key: key for key in ("id", "data_source", "prompt", "ability")} | {"style": {"value": "rule"}}
    rows = read_rows([file], {**columns, "ground_truth": "meta.answer"}, "rl").rows
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["2", "3"]


def test_a_missing_column_still_names_all_that_there_are(tmp_path):
    columns = {"prompt": "q", "response": "r", "source": {"value": "s"}, "teacher": {"value": "t"}}
    with pytest.raises(
        ConfigError, match="there is no q among id, data_source, prompt, ability, reward_model, created"
    ):
        read_rows([with_column(tmp_path, UNUSED["far date"])], columns, "sft")


def test_a_mapping_of_constants_only_reads_as_many_rows_as_there_are(tmp_path):
    columns = {key: {"value": "1+1?"} for key in ("prompt", "response", "source", "teacher")}
    assert len(read_rows([with_column(tmp_path, UNUSED["nulls"])], columns, "sft").rows) == 2


@pytest.mark.parametrize("kind", ["far date", "unknown zone", "not UTF-8"])
def test_a_column_that_is_used_and_cannot_be_read_is_a_bad_row(tmp_path, kind):
    file = with_column(tmp_path, UNUSED[kind])
    columns = {"prompt": "prompt", "response": "created", "source": {"value": "s"}, "teacher": {"value": "t"}}
    with pytest.raises(
        ConfigError, match=r"a.parquet, row 1: (created: is .* that can't be read|has text that is not)"
    ):
        read_rows([file], columns, "sft")
    assert sum(read_rows([file], columns, "sft", "skip").bad_rows.values()) == 2


# Whole numbers


@pytest.mark.parametrize("number", [16, 16.0, Decimal("16")])
def test_a_whole_number_with_a_fraction_is_one(tmp_path, number):
    if isinstance(number, Decimal):
        table = pa.Table.from_pylist([rl_row(id=None, completions=number, passed=number)])
        table = table.append_column("id", pa.array([number]))
        pq.write_table(table, tmp_path / "a.parquet")
        file = str(tmp_path / "a.parquet")
    else:
        file = write(tmp_path / "a.jsonl", [rl_row(id=number, completions=number, passed=number)])
    (row,) = read_rows([file], {}, "rl").rows
    assert (row["id"], row["completions"], row["passed"]) == ("16", 16, 16)
    assert type(row["completions"]) is type(row["passed"]) is int


def test_a_column_of_numbers_with_gaps_is_read(tmp_path):
    """pandas makes fractions of whole numbers where some are missing."""
    import pandas as pd

    rows = [rl_row(id=i, completions=16 if i else None, passed=3 if i else None) for i in range(2)]
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    first, second = read_rows([str(tmp_path / "a.parquet")], {}, "rl").rows
    assert "completions" not in first
    assert (second["id"], second["completions"], second["passed"]) == ("1", 16, 3)


# Bad rows

BAD = [
    ("rl", rl_row(id="b", completions=10**30, passed=3), "out of range", r"completions: is int 1000.*at most 1,000,000,000"),
    ("rl", rl_row(id="b", completions=10**30, passed=10**30), "out of range", "completions: is int 1000"),
    ("rl", rl_row(id="b", completions=-1, passed=-1), "out of range", "passed: is -1"),
    ("rl", rl_row(id="b", completions=float("nan"), passed=1), "wrong type", "completions: is float nan"),
    ("rl", rl_row(id="b", completions=float("inf"), passed=1), "wrong type", "completions: is float inf"),
    ("rl", rl_row(id="b", completions="16", passed=1), "wrong type", "completions: is str '16'"),
    ("rl", rl_row(id="b", completions=[16], passed=1), "wrong type", "completions: is list"),
    ("rl", rl_row(id=1.5), "wrong type", "id: is float 1.5; must be text"),
    ("rl", rl_row(id=float("nan")), "wrong type", "id: is float nan"),
    ("rl", rl_row(id=True), "wrong type", "id: is bool"),
    ("rl", rl_row(id=""), "empty id", "id: is empty"),
    ("rl", rl_row(id="b", prompt=ANSWERED), "answer in prompt", "prompt: ends in a turn of the assistant's, which shows"),
    ("rl", rl_row(id="b", prompt=json.dumps(MESSAGES)), "JSON in text", "prompt: is text that looks like JSON"),
    ("rl", rl_row(id="b", prompt=json.dumps(SHARE_GPT)), "JSON in text", "prompt: is text that looks like JSON"),
    ("rl", rl_row(id="b", reward_model='{"ground_truth": "2", "style": "rule"}'), "JSON in text", "ground_truth: reward_model is text"),
    ("rl", rl_row(id="b", reward_model="[1, 2"), "missing key", "ground_truth: there is no reward_model.ground_truth"),
    ("rl", rl_row(id="b", reward_model='{"answer": "2"}'), "missing key", "ground_truth: there is no reward_model.ground"),
    ("rl", rl_row(id="b", reward_model=["2"]), "missing key", "ground_truth: there is no reward_model.ground_truth"),
    ("rl", rl_row(id="b", reward_model={"ground_truth": 2.5, "style": "rule"}), "wrong type", "ground_truth: is float 2.5"),
    ("rl", rl_row(id="b", prompt={"role": "user", "content": "1+1?"}), "wrong type", "prompt: is dict"),
    ("sft", sft_row(correct=1), "wrong type", "correct: is int 1"),
    ("sft", sft_row(response=ANSWERED), "wrong type", "response: is list"),
    ("sft", sft_row(difficulty="0.5"), "wrong type", "difficulty: is str '0.5'"),
    ("sft", sft_row(difficulty=10**400), "out of range", "difficulty: is int 1000"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "bad", "reason", "message"), BAD)
def test_a_bad_row_stops_with_its_place_or_is_skipped_and_counted(tmp_path, kind, bad, reason, message):
    good = [rl_row(), rl_row(id="z")] if kind == "rl" else [sft_row(), sft_row(source="z")]
    file = write(tmp_path / "a.jsonl", [good[0], bad, good[1]])
    with pytest.raises(
        ConfigError, match=rf"a\.jsonl, line 2: {message}.*; fix it, or data.on_bad_row=skip drops"
    ):
        read_rows([file], {}, kind)
    read = read_rows([file], {}, kind, "skip")
    assert (read.rows, read.bad_rows) == (good, {reason: 1})


@pytest.mark.parametrize(
    "prompt", ["[1, 2, 3]: which is the largest?", "[1, 2, 3]", '{"role": "user"', "{x}", '{"a": 1}']
)
def test_a_prompt_that_only_begins_like_json_is_a_prompt(tmp_path, prompt):
    (row,) = read_rows([write(tmp_path / "a.jsonl", [rl_row(prompt=prompt)])], {}, "rl").rows
    assert row["prompt"] == [{"role": "user", "content": prompt}]


def test_a_turn_of_the_assistants_within_a_prompt_and_in_sft_prompts_is_no_answer(tmp_path):
    prompt = [*ANSWERED, {"role": "user", "content": "And 1+2?"}]
    assert read_rows([write(tmp_path / "a.jsonl", [rl_row(prompt=prompt)])], {}, "rl").rows[0]["prompt"] == prompt
    assert len(read_rows([write(tmp_path / "b.jsonl", [sft_row(prompt=ANSWERED)])], {}, "sft").rows) == 1


# What messages offer, typed


@pytest.mark.parametrize(
    ("kind", "row", "expected"),
    [
        ("rl", rl_row(prompt=json.dumps(MESSAGES)), rl_row()),
        ("rl", rl_row(reward_model=json.dumps(rl_row()["reward_model"])), rl_row()),
        ("rl", rl_row(prompt=json.dumps(MESSAGES), reward_model=json.dumps(rl_row()["reward_model"])), rl_row()),
        ("rl", rl_row(prompt=ANSWERED), rl_row()),
        ("rl", rl_row(prompt=json.dumps(ANSWERED), completions=16, passed=3), rl_row(completions=16, passed=3)),
        ("rl", rl_row(prompt=json.dumps(SHARE_GPT)), rl_row()),
        ("rl", rl_row(reward_model={"ground_truth": 2.0, "style": "rule"}), rl_row()),
        ("rl", rl_row(completions="16", passed="3"), rl_row(completions=16, passed=3)),
        ("sft", sft_row(prompt=json.dumps(MESSAGES)), sft_row()),
        ("sft", sft_row(correct="yes", difficulty="0.5"), sft_row()),
        ("sft", sft_row(response=[*MESSAGES, {"role": "assistant", "content": sft_row()["response"]}]), sft_row()),
    ],
)
def test_what_a_message_offers_can_be_typed_as_it_stands(config, tmp_path, kind, row, expected):
    given = [*(RL if kind == "rl" else SFT), files_setting(kind, write(tmp_path / "a.jsonl", [row]))]
    source, typed = follow(config, given)
    assert (source.rl_rows if kind == "rl" else source.sft_rows) == [expected]
    assert typed[0].startswith(f"+data_source.{kind}.columns={{")
    assert all(word.lstrip("+").startswith(f"data_source.{kind}.columns.") for word in typed[1:])


def test_so_it_is_beside_a_mapping_and_in_a_benchmark(config, tmp_path):
    rows = [{"q": json.dumps(MESSAGES), "about": {"deep": json.dumps({"truth": "2"})}}]
    file = write(tmp_path / "a.jsonl", rows)
    constant = "data_source: {value: math}, ability: {value: math}, style: {value: rule}"
    columns = f"{{prompt: q, ground_truth: about.deep.truth, {constant}}}"
    given = ["data_source=file", "sft.steps=0", "rl.steps=0"]
    given.append(f"+data_source.benchmarks.mine={{files: ['{file}'], columns: {columns}}}")
    source, typed = follow(config, given)
    assert source.benchmarks["mine"][0]["reward_model"]["ground_truth"] == "2"
    assert typed == [
        "data_source.benchmarks.mine.columns.prompt={column: q, as: json}",
        "data_source.benchmarks.mine.columns.ground_truth={column: about.deep, as: json, path: truth}",
    ]
    row = rl_row(prompt=json.dumps(MESSAGES))
    given[-1] = f"+data_source.benchmarks.mine={{files: ['{write(tmp_path / 'b.jsonl', [row])}']}}"
    source, typed = follow(config, given)
    assert source.benchmarks["mine"] == [rl_row()]


@pytest.mark.parametrize("name", ["my column", "antwort?", "null", "a=b", 'q"uote', "größe", "7"])
def test_columns_of_any_name_are_offered_so_that_hydra_reads_them(config, tmp_path, name):
    file = write(tmp_path / "a.jsonl", [{**sft_row(correct="yes"), name: json.dumps(MESSAGES)}])
    quoted = json.dumps(name, ensure_ascii=False)
    columns = f"{{prompt: {quoted}, response: response, source: source, teacher: teacher}}"
    source, typed = follow(config, [*SFT, files_setting("sft", file), f"+data_source.sft.columns={columns}"])
    assert source.sft_rows[0]["prompt"] == MESSAGES
    assert len(typed) == 1


def test_text_that_a_conversion_cannot_read_because_it_is_json_is_offered_too(config, tmp_path):
    file = write(tmp_path / "a.jsonl", [{"messages": json.dumps(SHARE_GPT)}])
    columns = (
        "{prompt: {column: messages, as: before_last_answer}, response: {column: messages, as: last_answer}, "
        "source: {value: s}, teacher: {value: t}}"
    )
    source, typed = follow(config, [*SFT, files_setting("sft", file), f"+data_source.sft.columns={columns}"])
    assert source.sft_rows[0]["response"] == "<think>x</think>2"
    assert "data_source.sft.columns.response={column: messages, as: [json, last_answer]}" in typed


def test_a_mapping_of_one_column_says_what_to_type_for_the_others(config, tmp_path):
    file = write(tmp_path / "a.jsonl", [{**rl_row(), "question": "1+1?"}])
    given = [*RL, files_setting("rl", file), "+data_source.rl.columns.prompt=question"]
    with pytest.raises(
        ConfigError, match="data_source.rl.columns.ability: says no column, and a mapping names all"
    ) as error:
        config(*given)
    typed = re.findall(r"add '(.*?)' if that is its column", str(error.value))
    assert "+data_source.rl.columns.ground_truth=reward_model.ground_truth" in typed
    assert len(load_source(config(*given, *typed)).rl_rows) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ('{"a": 1}', "there is no b in x, dict {'a': 1}"),
        ("[1]", "there is no b in x, list"),
        ("{", "json can't read"),
    ],
)
def test_a_path_within_json_that_leads_nowhere_is_a_bad_row(tmp_path, value, message):
    columns = {"prompt": {"column": "x", "as": "json", "path": "b"}, "response": "x"}
    columns |= {"source": {"value": "s"}, "teacher": {"value": "t"}}
    with pytest.raises(ConfigError, match=f"prompt: {message}"):
        read_rows([write(tmp_path / "a.jsonl", [{"x": value}])], columns, "sft")


# Files that aren't


def test_a_folder_that_is_given_as_a_file_says_what_to_write(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    with pytest.raises(ConfigError, match=r"rows: is a folder; none of what is in it ends in one of .jsonl"):
        read_rows([str(folder)], {}, "rl")
    write(folder / "a.jsonl.gz", [rl_row()])
    with pytest.raises(ConfigError, match=r"rows/: is a folder; for the files in it write") as error:
        read_rows([f"{folder}/"], {}, "rl")
    (glob,) = re.findall(r"\['(.*)'\]", str(error.value))
    assert read_rows([glob], {}, "rl").rows == [rl_row()]


@pytest.mark.parametrize("name", ["dead.jsonl", "*.jsonl"])
def test_a_dead_link_is_named_also_among_the_files_of_a_glob(tmp_path, name):
    write(tmp_path / "a.jsonl", [rl_row()])
    (tmp_path / "dead.jsonl").symlink_to("/nowhere/a.jsonl")
    with pytest.raises(ConfigError, match=r"dead.jsonl: is a link to /nowhere/a.jsonl, where nothing is"):
        read_rows([str(tmp_path / name)], {}, "rl")


def test_a_file_as_a_repository_says_what_to_type(config, tmp_path):
    file = write(tmp_path / "a.jsonl", [rl_row()])
    given = [*RL, f"data_source.rl.repository={file}", "data_source.rl.split=train"]
    with pytest.raises(ConfigError, match="data_source.rl: .*a.jsonl: is a file and no repository; type") as error:
        load_source(config(*given))
    typed = shlex.split(str(error.value).partition("; type ")[2])
    assert load_source(config(*given, *typed)).rl_rows == [rl_row()]


def test_a_missing_file_of_a_local_repository_names_the_nearest(config, tmp_path):
    pytest.importorskip("datasets", reason="datasets is not installed")
    write(tmp_path / "train.jsonl", [rl_row()])
    given = [*RL, f"data_source.rl.repository={tmp_path}", "data_source.rl.split=train"]
    for name in ("trian.jsonl", "data/*.jsonl"):
        message = (
            rf"data_source.rl: files={re.escape(name)}: no such file in {tmp_path}; nearest in .*: train.jsonl"
        )
        with pytest.raises(ConfigError, match=message):
            load_source(config(*given, f"data_source.rl.files=['{name}']"))


def test_an_empty_local_repository_is_not_taken_for_a_hub_that_cannot_be_reached(config, tmp_path):
    pytest.importorskip("datasets", reason="datasets is not installed")
    (tmp_path / "Empty").mkdir()
    with pytest.raises(ConfigError, match=r"data_source.rl: .*Empty") as error:
        load_source(config(*RL, f"data_source.rl.repository={tmp_path}/Empty", "data_source.rl.split=train"))
    assert "hub can't be reached" not in str(error.value) and "\n" not in str(error.value)


def test_dates_in_json_lines_are_passed_over_too(tmp_path):
    row = rl_row(created=str(datetime.datetime.max), zone="Mars/Phobos", huge=10**400)
    assert read_rows([write(tmp_path / "a.jsonl", [row])], {}, "rl").rows == [rl_row()]
    assert Path(tmp_path / "a.jsonl").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data_source.rl.columns.prompt=q", "data_source.rl.columns.prompt: .*type a . first: '[+]data_source.rl.columns.prompt="),
        ("data_source.rl.columns={prompt: q}", "data_source.rl.columns.prompt: .*type a . first"),
        ("data_source.benchmarks.x.files=[a]", "data_source.benchmarks.x: .*type '[+]data_source.benchmarks.x={files: "),
    ],
)  # fmt: skip
def test_an_override_that_adds_a_key_without_its_plus_is_told_to(composed_config, override, message):
    with pytest.raises(HydraException) as error:
        composed_config(*RL, override)
    assert re.match(message, explain(error.value))
