"""Several sources of files and of the hub as one: their rows in order, and every message by the part it is about."""

import pytest

from klear_lab.config import ConfigError
from klear_lab.data.sources import load_source, source_fingerprint
from support.rows import rl_row, sft_row, write

PARTS = "data_source.sources"


@pytest.fixture
def joined(config, tmp_path):
    """A function from overrides to the config of two sources of files, in which each part has one row of its own."""

    def parts(*overrides):
        given = ["data_source=klear_reasoner", f"~{PARTS}.openthoughts3", f"~{PARTS}.acereason_sft"]
        given += [f"~{PARTS}.klear_code.benchmarks.lcb_v6", f"~{PARTS}.opencodereasoning.sft.columns"]
        files = {
            "opencodereasoning.sft": [sft_row()],
            "klear_math.rl": [rl_row(id="math")],
            "klear_code.rl": [rl_row(id="other")],
            "klear_code.benchmarks.lcb_v5": [rl_row(id="asked")],
        }
        for key, rows in files.items():
            file = write(tmp_path / f"{key}.jsonl", rows)
            given += [f"{PARTS}.{key}.{name}=null" for name in ("repository", "split", "config")]
            given += [f"{PARTS}.{key}.files=[{file}]"]
        given += [f"~{PARTS}.klear_code.benchmarks.lcb_v5.columns"]
        return config(*given, *overrides)

    return parts


@pytest.mark.parametrize("on_disk", [False, True])
def test_rows_come_one_source_after_the_other(joined, tmp_path, on_disk):
    source = load_source(joined(), tmp_path if on_disk else None)
    assert [row["id"] for row in source.rl_rows] == ["math", "other"]
    assert [row["response"] for row in source.sft_rows] == [sft_row()["response"]]
    assert [*source.benchmarks] == ["aime24", "lcb_v5"]


def test_files_of_all_parts_are_hashed_by_their_part(joined, tmp_path):
    names = [name for name, _ in source_fingerprint(joined().data_source, tmp_path)]
    assert f"{PARTS}.klear_math.rl: klear_math.rl.jsonl" in names and len(names) == 5


def test_two_benchmarks_of_one_name_are_refused(joined, tmp_path):
    file = write(tmp_path / "b.jsonl", [rl_row()])
    settings = joined(f"+{PARTS}.klear_code.benchmarks.aime24={{files: [{file}]}}")
    with pytest.raises(ConfigError, match=f"{PARTS}.klear_code.benchmarks.aime24: another source has a benchmark"):
        load_source(settings)


def test_what_is_wrong_with_a_part_is_named_by_its_key(joined, tmp_path):
    file = write(tmp_path / "bad.jsonl", [rl_row(prompt=[])])
    with pytest.raises(ConfigError, match=f"{PARTS}.klear_math.rl: .*bad.jsonl, line 1: prompt"):
        load_source(joined(f"{PARTS}.klear_math.rl.files=[{file}]"))
    with pytest.raises(ConfigError, match=f"sft.steps=4: each of {PARTS}.sft names neither"):
        joined(f"{PARTS}.opencodereasoning.sft=null")


def ids_of(joined, tmp_path, **rows):
    """The ids of RL rows of klear_math and klear_code, of files with these rows."""
    given = []
    for part, own in rows.items():
        (tmp_path / part).mkdir()
        given += [f"{PARTS}.{part}.rl.files=[{write(tmp_path / part / 'train.jsonl', own)}]"]
    return [row["id"] for row in load_source(joined(*given)).rl_rows]


def test_rows_without_ids_of_files_that_are_named_alike_have_ids_of_their_own(joined, tmp_path):
    three, two = ([rl_row(id=None, prompt=f"{i}+{n}?") for i in range(n)] for n in (3, 2))
    assert ids_of(joined, tmp_path, klear_math=three, klear_code=two) == [
        *("klear_math-train-1", "klear_math-train-2", "train-3", "klear_code-train-1", "klear_code-train-2")
    ]


def test_an_id_that_a_prefix_would_make_twice_gets_another(joined, tmp_path):
    own = {"klear_math": [rl_row(id="x")], "klear_code": [rl_row(id="x"), rl_row(id="klear_math-x")]}
    assert ids_of(joined, tmp_path, **own) == ["klear_math-klear_math-x", "klear_code-x", "klear_math-x"]
