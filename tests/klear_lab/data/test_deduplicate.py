"""Exact deduplication: against a dictionary of strings, and on planted copies."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klear_lab.data.deduplicate import first_answers, first_occurrences

PROMPTS = st.sampled_from(
    ["a b", "a  b ", "A b", "\N{FULLWIDTH LATIN SMALL LETTER A} b", "ab", "", " ", "é", "e\u0301", "\ud800"]
)
ROWS = st.lists(st.tuples(PROMPTS, st.sampled_from("xyz"), st.sampled_from(["1", "1 ", "2"])), max_size=30)


def reference(prompts, sources=None, responses=None):
    owner, seen, keep = {}, set(), []
    for i, prompt in enumerate(prompts):
        query = " ".join(unicodedata.normalize("NFKC", prompt).split())
        source = sources[i] if sources else None
        row = (query, responses[i] if responses else None)
        keep.append(owner.setdefault(query, source) == source and row not in seen)
        if keep[-1]:
            seen.add(row)
    return keep


@given(ROWS, st.booleans(), st.booleans())
def test_equals_a_dictionary_of_strings(rows, with_sources, with_responses):
    prompts, sources, responses = ([row[i] for row in rows] for i in range(3))
    columns = (prompts, sources if with_sources else None, responses if with_responses else None)
    assert first_occurrences(*columns).tolist() == reference(*columns)


def test_planted_copies_are_found_and_nothing_else():
    originals = [f"Find  the {i}-th term of x\u00b2 + \ufb01ve\n\tand add 3." for i in range(500)]
    spell = [
        str.strip,
        lambda s: "  " + " \u00a0".join(s.split(" ")) + "\n",
        lambda s: unicodedata.normalize("NFKC", s),
        lambda s: unicodedata.normalize("NFD", s),
    ]
    copies = [(i, spell[i % 4](originals[i])) for i in range(0, 500, 3)]
    others = [(500 + i, s.upper()) for i, s in enumerate(originals)] + [
        (1000 + i, s + "!") for i, s in enumerate(originals)
    ]
    rows = [*enumerate(originals), *copies, *others]
    random.Random(0).shuffle(rows)
    seen = set()
    expected = [i not in seen and not seen.add(i) for i, _ in rows]
    assert first_occurrences(prompt for _, prompt in rows).tolist() == expected
    assert len(rows) - sum(expected) == len(copies)


def test_a_query_belongs_to_the_first_source_and_keeps_its_different_answers():
    rows = [
        ("q", "first", "answer 1", True),
        ("q", "second", "answer 2", False),
        ("q ", "first", "answer 2", True),
        ("q", "first", "answer 1", False),
        ("r", "second", "answer 1", True),
        ("r", "first", "answer 9", False),
    ]
    prompts, sources, responses, expected = zip(*rows)
    assert first_occurrences(prompts, sources, responses).tolist() == list(expected)
    assert first_occurrences(prompts, sources).tolist() == [True, False, False, False, True, False]


def test_no_rows():
    assert first_occurrences([]).tolist() == first_occurrences([], [], []).tolist() == []


@pytest.mark.parametrize("columns", [{"sources": ["s"]}, {"responses": ["r", "r", "r"]}])
def test_columns_of_different_lengths_are_an_error(columns):
    [name] = columns
    with pytest.raises(ValueError, match=f"{name}: . rows, but prompts has 2"):
        first_occurrences(["a", "b"], **columns)


def test_reading_each_row_once_finds_what_reading_column_after_column_finds():
    stream = random.Random(0)
    rows = [tuple(f"{name} {stream.randrange(6)}" for name in ("p", "s", "r")) for _ in range(500)]
    rows += [(f" {prompt}\u00a0", source, response) for prompt, source, response in rows[:200]]
    keep = first_answers(iter(rows))
    assert keep.tolist() == first_occurrences(*zip(*rows, strict=True)).tolist()
    assert 0 < keep.sum() < 100
