"""Rows from files: formats, and every kind of bad row in both modes."""

import gzip
import json
import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klear_lab.config import ConfigError
from klear_lab.data.read_rows import read_rows
from klear_lab.data.rl_filters import why_not
from klear_lab.data.sources import load_source
from support.rows import BAD, rl_row, sft_row, write, write_parquet


def test_how_a_strong_model_fared_comes_with_a_row_by_any_column_name(tmp_path):
    named = rl_row(id="a", completions=16, passed=9)
    path = write(tmp_path / "rows.jsonl", [named, rl_row(id="b")])
    assert read_rows([path], None, "rl").rows == [named, rl_row(id="b")]
    other = write(tmp_path / "other.jsonl", [{"q": "1+1?", "a": "2", "n": 16, "right": 9}])
    constant = {
        key: {"value": value} for key, value in (("data_source", "math"), ("ability", "math"), ("style", "rule"))
    }
    (row,) = read_rows(
        [other], {"prompt": "q", "ground_truth": "a", "completions": "n", "passed": "right", **constant}, "rl"
    ).rows
    assert (row["completions"], row["passed"]) == (16, 9)


def test_a_row_with_no_completions_counts_as_not_tried(tmp_path):
    rows = [rl_row(id=name, completions=0, passed=0) for name in "ab"]
    for file in (write(tmp_path / "rows.jsonl", rows), write_parquet(tmp_path / "rows.parquet", rows)):
        assert read_rows([file], None, "rl").rows == [rl_row(id="a"), rl_row(id="b")]
    assert why_not(rows[0], 16) is None


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"id": "a", "id": "b"}', "id"),
        ('{"id": "a", "prompt": [{"role": "user", "content": "x", "role": "system"}]}', "role"),
        ('{"id": "a", "p\\u0072ompt": "x", "prompt": "x"}', "prompt"),
        ('{"": 1, "": 1}', ""),
    ],
)
def test_a_row_with_a_key_twice_is_bad_and_the_key_is_named(tmp_path, line, key):
    file = write(tmp_path / "a.jsonl", [rl_row(), line.encode()])
    said = f"a.jsonl, line 2: has the key {key!r} twice in one object; keep one of them"
    with pytest.raises(ConfigError, match=said):
        read_rows([file], None, "rl")
    assert read_rows([file], None, "rl", "skip").bad_rows == {"repeated key": 1}


FIELD = pa.field("a", pa.int32())
TWICE = pa.struct([FIELD, FIELD])


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [("prompt", pa.int32(), "prompt"), ("extra", TWICE, "a"), ("extra", pa.map_(pa.int8(), pa.list_(TWICE)), "a")],
)
def test_a_file_with_a_column_or_field_twice_has_only_bad_rows(tmp_path, name, kind, key):
    table = pa.Table.from_pylist([rl_row(id=i) for i in "abc"])
    file = str(tmp_path / "a.parquet")
    pq.write_table(table.append_column(name, pa.nulls(3, kind)), file)
    said = f"a.parquet, row 1: has the column or field {key!r} twice, as every row of the file has; keep one"
    with pytest.raises(ConfigError, match=said):
        read_rows([file], None, "rl")
    assert read_rows([file], None, "rl", "skip").bad_rows == {"repeated key": 3}


# Formats

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}),
    max_size=2,
).map(lambda before: [*before, {"role": "user", "content": "then?"}])
RL_ROW = st.fixed_dictionaries(
    {
        "data_source": st.sampled_from(["math_x", "chain_exact", "math_longcot_math_verify25"]),
        "prompt": MESSAGES,
        "ability": TEXT,
        "reward_model": st.fixed_dictionaries({"ground_truth": TEXT, "style": TEXT}),
    }
)
SFT_ROW = st.fixed_dictionaries(
    {
        "prompt": MESSAGES,
        "response": TEXT,
        "source": TEXT,
        "teacher": TEXT,
        "difficulty": st.none() | st.floats(0, 1),
        "correct": st.none() | st.booleans(),
    }
)
SCHEMA = {"difficulty": pa.float64(), "correct": pa.bool_()}


def write_anyhow(path, rows):
    if path.suffix != ".parquet":
        return write(path, rows)
    table = pa.Table.from_pylist(rows)
    for name, kind in SCHEMA.items():
        if name in table.column_names:  # a column of nulls only has no type
            table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    pq.write_table(table, path, row_group_size=3)
    return str(path)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_come_back_as_they_were_written(data):
    kind = data.draw(st.sampled_from(["rl", "sft"]))
    rows = data.draw(st.lists(RL_ROW if kind == "rl" else SFT_ROW, min_size=1, max_size=8))
    if kind == "rl":
        rows = [{"id": f"r{i}", **row} for i, row in enumerate(rows)]
    cut = data.draw(st.integers(0, len(rows)))
    suffixes = st.sampled_from([".jsonl", ".json.gz", ".jsonl.gz", ".parquet"])
    with tempfile.TemporaryDirectory() as folder:
        parts = [part for part in (rows[:cut], rows[cut:]) if part]
        files = [write_anyhow(Path(folder, f"{i}{data.draw(suffixes)}"), part) for i, part in enumerate(parts)]
        read = read_rows(files, {}, kind, "stop")
        assert read.rows == read_rows([f"{folder}/*"], None, kind).rows == rows
        assert (read.bad_rows, read.not_kept) == ({}, 0)
        assert read_rows(files, {}, kind, limit=1).rows == rows[:1]


def test_a_row_without_an_id_gets_one_of_its_file_and_line(tmp_path):
    first = write(tmp_path / "a.v1.jsonl", [rl_row(id=None), b"", rl_row(id=7)])
    second = write_parquet(tmp_path / "b.parquet", [rl_row(id=None)] * 2)
    ids = [row["id"] for row in read_rows([first, second], {}, "rl").rows]
    assert ids == ["a.v1-1", "7", "b-1", "b-2"]


def test_files_of_one_name_in_two_folders_give_different_ids(tmp_path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "train.jsonl", [rl_row(id=None)])
    ids = [row["id"] for row in read_rows([str(tmp_path / "**" / "*.jsonl")], {}, "rl").rows]
    assert ids == ["x/train.jsonl-1", "y/train.jsonl-1"]


def test_what_our_formats_have_no_key_for_is_left_out(tmp_path):
    file = write(tmp_path / "a.jsonl", [rl_row(extra_info={"index": 3}, hash="x"), rl_row(id="b", prompt="1+1?")])
    assert read_rows([file], {}, "rl").rows == [rl_row(), rl_row(id="b")]


def test_a_byte_order_mark_carriage_returns_and_empty_lines_are_no_trouble(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(rl_row()).encode() + b"\r\n\r\n  \n")
    assert read_rows([str(path)], {}, "rl").rows == [rl_row()]


def test_a_file_named_twice_is_read_once(tmp_path):
    file = write(tmp_path / "a.jsonl", [rl_row()])
    assert len(read_rows([file, str(tmp_path / "*.jsonl")], {}, "rl").rows) == 1


@pytest.mark.parametrize("mode", ["stop", "skip"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian.jsonl", r"trian.jsonl: no such file; nearest in .*: train.jsonl"),
        ("*.parquet", r"no file matches; nearest in"),
        ("no/such/folder/x.jsonl", r"no such file; nearest in .*: notes.txt"),
        ("notes.txt", r"must end in one of .jsonl"),
    ],
)
def test_a_missing_file_is_an_error_in_both_modes(tmp_path, mode, name, message):
    write(tmp_path / "train.jsonl", [rl_row()])
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=message):
        read_rows([str(tmp_path / name)], {}, "rl", mode)


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_no_file_at_all_is_an_error(mode):
    with pytest.raises(ConfigError, match="names none"):
        read_rows([], {}, "rl", mode)


def test_an_unknown_mode_or_kind_is_an_error(tmp_path):
    file = write(tmp_path / "a.jsonl", [rl_row()])
    with pytest.raises(ConfigError, match="data.on_bad_row=drop: must be one of stop, skip"):
        read_rows([file], {}, "rl", "drop")
    with pytest.raises(ConfigError, match="kind=dpo: must be one of rl, sft"):
        read_rows([file], {}, "dpo")


# Bad rows


@pytest.mark.parametrize(("kind", "bad", "reason", "message"), BAD)
def test_a_bad_row_stops_with_its_place_or_is_skipped_and_counted(tmp_path, kind, bad, reason, message):
    good = [rl_row(), rl_row(id="z")] if kind == "rl" else [sft_row(), sft_row(source="z")]
    file = write(tmp_path / "a.jsonl", [good[0], bad, good[1]])
    with pytest.raises(ConfigError, match=rf"a\.jsonl, line 2: (?s:.*){message}") as error:
        read_rows([file], {}, kind, "stop", longest_line=2000 if len(bad) < 9999 else 10**6)
    assert str(error.value).endswith("; fix it, or data.on_bad_row=skip drops and counts such rows")
    read = read_rows([file], {}, kind, "skip", longest_line=2000 if len(bad) < 9999 else 10**6)
    assert (read.rows, read.bad_rows) == (good, {reason: 1})
    assert read.examples[reason].startswith(f"{file}, line 2: ")


@pytest.mark.parametrize(
    ("kind", "bad", "reason", "message"),
    [
        b
        for b in BAD
        if isinstance(b[1], dict)
        and b[2] in ("missing key", "empty prompt", "out of range", "unknown data_source", "unreadable tests")
    ],
)
def test_bad_rows_of_parquet_name_their_row(tmp_path, kind, bad, reason, message):
    if kind == "rl" and "reward_model" in bad and not isinstance(bad["reward_model"].get("ground_truth", ""), str):
        return
    files = [write_parquet(tmp_path / "a.parquet", [bad])]
    with pytest.raises(ConfigError, match=rf"a\.parquet, row 1: .*(?:{message}|must)"):
        read_rows(files, {}, kind)
    assert sum(read_rows(files, {}, kind, "skip").bad_rows.values()) == 1


def test_a_line_that_is_too_long_is_not_held_in_memory(tmp_path):
    import tracemalloc

    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(60):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + json.dumps(rl_row()).encode())
    tracemalloc.start()
    read = read_rows([str(tmp_path / "a.jsonl.gz")], {}, "rl", "skip", longest_line=100_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (read.rows, read.bad_rows) == ([rl_row()], {"line too long": 1})
    assert peak < 5_000_000


def test_the_longest_line_is_a_limit_that_includes_itself(tmp_path):
    line = json.dumps(rl_row(), ensure_ascii=False).encode()
    for end in (b"", b"\n", b"\r\n"):
        (tmp_path / "a.jsonl").write_bytes(line + end)
        assert read_rows([str(tmp_path / "a.jsonl")], {}, "rl", longest_line=len(line)).rows == [rl_row()]
        read = read_rows([str(tmp_path / "a.jsonl")], {}, "rl", "skip", longest_line=len(line) - 1)
        assert read.bad_rows == {"line too long": 1}


def corrupt(tmp_path, how):
    numbers = random.Random(0)
    rows = [rl_row(id=f"r{i}", prompt=f"{i} {numbers.random()}?") for i in range(4000)]
    if how.startswith("gzip"):
        file = write(tmp_path / "a.jsonl.gz", rows)
        content = bytearray(Path(file).read_bytes())
        if how == "gzip cut":
            content = content[: len(content) // 2]
        elif how == "gzip checksum":
            content[-8:-4] = b"\xff" * 4
        else:
            content = bytearray(b"not gzip at all")
    else:
        file = write_parquet(tmp_path / "a.parquet", rows, row_group_size=1000, compression="zstd")
        content = bytearray(Path(file).read_bytes())
        if how == "parquet cut":
            content = content[: len(content) // 2]
        else:
            content[len(content) // 2 : len(content) // 2 + 4000] = b"\xff" * 4000
    Path(file).write_bytes(content)
    return file


@pytest.mark.parametrize("how", ["gzip cut", "gzip checksum", "gzip not", "parquet cut", "parquet flipped"])
def test_of_a_corrupt_file_the_rows_before_are_kept_and_the_rest_is_counted(tmp_path, how):
    file = corrupt(tmp_path, how)
    good = write(tmp_path / "b.jsonl", [rl_row()])
    with pytest.raises(ConfigError, match=r"a\..*, (line|row) \d+: the file is truncated or corrupt"):
        read_rows([file, good], {}, "rl", "stop")
    read = read_rows([file, good], {}, "rl", "skip")
    assert read.rows[-1] == rl_row()
    assert [row["id"] for row in read.rows[:-1]] == [f"r{i}" for i in range(len(read.rows) - 1)]
    assert read.bad_rows["truncated file"] >= 1
    if how == "parquet flipped":
        assert read.bad_rows["truncated file"] + len(read.rows) - 1 == 4000
        assert len(read.rows) > 500
    if how.startswith("gzip "):
        least = {"gzip cut": 500, "gzip checksum": 4001, "gzip not": 1}
        assert len(read.rows) >= least[how]


def test_text_of_parquet_that_is_not_utf_8_costs_one_row(tmp_path):
    rows = [rl_row(id=None) for _ in range(3)]
    table = pa.Table.from_pylist(rows)
    ability = pa.array([b"math", b"\xff\xfe", b"math"]).view(pa.string())
    table = table.set_column(table.column_names.index("ability"), "ability", ability)
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match=r"a.parquet, row 2: has text that is not UTF-8"):
        read_rows([str(tmp_path / "a.parquet")], {}, "rl")
    read = read_rows([str(tmp_path / "a.parquet")], {}, "rl", "skip")
    assert ([row["id"] for row in read.rows], read.bad_rows) == (["a-1", "a-3"], {"wrong encoding": 1})


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".jsonl.gz", ".parquet"]))
def test_any_bytes_at_all_are_skipped_and_counted(content, suffix):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"a{suffix}")
        file.write_bytes(content)
        read = read_rows([str(file)], {}, "rl", "skip")
        assert read.rows == []


def test_files_of_a_package_are_named_by_it():
    name = "pkg://klear_lab/data/benchmarks/aime24.jsonl"
    columns = {"prompt": "messages", "ground_truth": "meta.answer"}
    columns |= {key: {"value": "math"} for key in ("data_source", "ability", "style")}
    assert len(read_rows([name], columns, "rl").rows) == 30
    with pytest.raises(ConfigError, match=r"aime25.jsonl: no such file; nearest in .*: aime24.jsonl"):
        read_rows([name.replace("24", "25")], columns, "rl")
    with pytest.raises(ConfigError, match="pkg://moon/x.jsonl: there is no package moon"):
        read_rows(["pkg://moon/x.jsonl"], columns, "rl")


@pytest.mark.parametrize(("limit", "unread"), [(2, True), (3, False), (4, False), (None, False)])
def test_reading_tells_whether_rows_are_left_behind_the_limit(tmp_path, limit, unread):
    path = write(tmp_path / "rows.jsonl", [rl_row(id=str(n)) for n in range(3)])
    read = read_rows([str(path)], None, "rl", "stop", limit)
    assert (len(read.rows), read.unread) == (min(3, limit or 3), unread)


def test_a_run_says_that_rows_are_left_unread_and_by_which_key(config, tmp_path, caplog):
    path = write(tmp_path / "rows.jsonl", [rl_row(id=str(n)) for n in range(5)])
    c = config("data_source=file", f"data_source.rl.files=[{path}]", "sft.steps=0", "data.rl_rows=2")
    load_source(c)
    assert (
        "data_source.rl: the first 2 rows are read and further ones aren't; data.rl_rows=null reads" in caplog.text
    )
