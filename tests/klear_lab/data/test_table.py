"""Rows on disk: what goes in comes out, in order, one row or many, and nothing is opened before it is needed."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klear_lab.data.table import ROWS_A_BATCH, StoredRows, write_rows
from klear_lab.storage.files import StorageError
from support.rows import rl_row, sft_row

ROWS = [sft_row(response=f"<think>{i}</think>{i}") for i in range(3 * ROWS_A_BATCH + 5)]


@pytest.fixture
def stored(tmp_path):
    return write_rows(ROWS, tmp_path / "rows.arrow")


def test_rows_come_back_by_number_by_slice_and_one_after_the_other(stored):
    assert len(stored) == len(ROWS) and [*stored] == ROWS
    assert [stored[i] for i in (0, 63, 64, 196, -1, -197)] == [ROWS[i] for i in (0, 63, 64, 196, -1, -197)]
    assert stored[60:70] == ROWS[60:70] and stored[-3:] == ROWS[-3:] and stored[::-50] == ROWS[::-50]
    for place in (197, -198):
        with pytest.raises(IndexError):
            stored[place]


def test_a_selection_of_a_selection_is_what_lists_would_give(stored):
    some = stored.select(np.arange(5, 150, 3)).select(np.array([40, 2, 2, 7]))
    expected = [ROWS[5:150:3][i] for i in (40, 2, 2, 7)]
    assert [*some] == some[:] == expected and len(some) == 4 and some[1] == expected[1]
    assert not stored.select(np.arange(0))


def test_a_copy_of_a_selection_is_byte_identical_to_one_of_its_rows(stored, tmp_path):
    copy = write_rows(stored.select(np.arange(1, 190, 2)), tmp_path / "copy.arrow")
    write_rows(ROWS[1:190:2], tmp_path / "rows.arrow.2")
    assert [*copy] == ROWS[1:190:2]
    assert copy.path.read_bytes() == (tmp_path / "rows.arrow.2").read_bytes()


def test_no_rows_are_rows_too(tmp_path):
    none = write_rows([], tmp_path / "rows.arrow")
    assert len(none) == 0 and [*none] == none[:] == []


def test_rows_of_any_keys_and_types_lie_beside_each_other(tmp_path):
    rows = [
        rl_row(completions=16, passed=3),
        rl_row(meta={"a": [1, "x", None, {"b": 1.5}], "": True}),
        rl_row(meta="text"),
        sft_row(difficulty=None, correct=None, meta=[[]]),
        sft_row(difficulty=1, meta=2**80),
        sft_row(response='\0 \u2028 \ud55c \U0001f600 \r\n\t"\\'),
        {},
    ]
    stored = write_rows(rows, tmp_path / "rows.arrow")
    assert [*stored] == rows
    assert [[*row] for row in stored] == [[*row] for row in rows]  # the order of keys
    assert isinstance(stored[4]["difficulty"], int) and isinstance(sft_row()["difficulty"], float)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
KEYS = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=2 * ROWS_A_BATCH + 1))
def test_whatever_json_can_say_comes_back(tmp_path_factory, rows):
    stored = write_rows(rows, tmp_path_factory.getbasetemp() / "any.arrow")
    assert [*stored] == [json.loads(json.dumps(row)) for row in rows] == [stored[i] for i in range(len(rows))]


def test_half_a_surrogate_pair_is_refused_as_it_was_in_json_lines(tmp_path):
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        write_rows([sft_row(response="\ud800")], tmp_path / "rows.arrow")


def test_a_file_is_opened_when_its_rows_are_asked_for(tmp_path):
    absent = StoredRows(tmp_path / "absent.arrow")
    for ask in (len, list, lambda rows: rows[0], lambda rows: rows[:1]):
        with pytest.raises(StorageError, match=f"{tmp_path}: damaged .*; delete this folder"):
            ask(absent)


def test_a_damaged_file_is_named(stored, tmp_path):
    content = stored.path.read_bytes()
    for number, damaged in enumerate([b"", content[:5000], content[:-3], b"x" * 5000]):
        path = tmp_path / f"{number}.arrow"
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="damaged"):
            [*StoredRows(path)]
    place = content.index(b'"response"', 9000)
    stored.path.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    with pytest.raises(StorageError, match="damaged"):
        [*StoredRows(stored.path)]


def test_any_program_that_reads_arrow_can_read_the_file(stored):
    with pa.memory_map(str(stored.path)) as file:
        texts = pa.ipc.open_file(file).read_all()["row"].to_pylist()
    assert [json.loads(text) for text in texts] == ROWS
