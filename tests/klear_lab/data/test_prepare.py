"""Preparation: the embedded sources and their planted flaws, the steps in order, what each is said to have dropped."""

import dataclasses
import json
import random
from collections import Counter

import pytest

from klear_lab.config import ConfigError
from klear_lab.data.embedded import SOURCES, load_embedded
from klear_lab.data.prepare import load_prepared, prepare_data, save_prepared
from klear_lab.data.rl_filters import pass_at_k, why_not
from klear_lab.data.sources import load_source
from klear_lab.data.table import StoredRows
from klear_lab.rows import prompt_text
from klear_lab.storage.files import StorageError
from klear_lab.storage.stage_cache import reading
from klear_lab.worlds import chain, functions
from support.rows import write

WORLDS = ["chain", "functions"]
MANY = {"chain": 10, "functions": 6}


def load(config, *overrides):
    c = config("data.sft_rows=400", *overrides)
    return load_embedded(c.data_source, c.data, c.teacher)


def by_source(rows):
    found = {}
    for row in rows:
        found.setdefault(row["source"], []).append(row)
    return found


@pytest.mark.parametrize("world", WORLDS)
def test_sources_fall_in_quality_and_come_in_the_stated_order(config, world):
    source = load(config, f"data_source={world}", f"data_source.sources={MANY[world]}")
    rows = by_source(source.sft_rows)
    assert [*rows] == source.quality_order == [quality.name for quality in SOURCES[: MANY[world]]]
    assert {len(of) for of in rows.values()} == {400}
    shares = [sum(row["correct"] for row in of) / len(of) for of in rows.values()]
    assert shares[0] > shares[len(shares) // 2] > shares[-1]


def test_flaws_are_planted_at_their_rates(config):
    source = load(config, "data_source.sources=10", "data.sft_rows=2000")
    known = {prompt_text(row) for rows in source.benchmarks.values() for row in rows}
    for quality, rows in zip(SOURCES, by_source(source.sft_rows).values(), strict=True):
        prompts = [prompt_text(row) for row in rows]
        copies = sum(count - 1 for p, count in Counter(map(str.strip, prompts)).items() if p not in known)
        contaminated = sum(prompt.strip() in known for prompt in prompts)
        short = sum(len(prompt.strip()) == 6 for prompt in prompts)
        broken = sum("</think>" not in r["response"] or r["response"].endswith("</think>") for r in rows)
        assert contaminated >= 0.7 * quality.contaminated * 2000 and (quality.contaminated or not contaminated)
        assert copies >= 0.7 * quality.repeated * 2000
        assert (short > 0) == (quality.short > 0)
        assert broken == pytest.approx(quality.broken * 2000, rel=0.3)
        assert not any(r["correct"] for r in rows if "</think>" not in r["response"])


def test_the_steps_drop_what_was_planted_and_nothing_else(config):
    c = config(
        "data_source.sources=10", "data.sft_rows=1000", "data.rl_rows=500", "data_source.faulty_rl_share=0.2"
    )
    source, prepared = load_embedded(c.data_source, c.data, c.teacher), prepare_data(c)
    known = {prompt_text(row) for rows in source.benchmarks.values() for row in rows}
    left = Counter(prompt_text(row).strip() for row in prepared.sft_rows)
    planted = {prompt_text(row).strip() for row in source.sft_rows} & known
    assert planted and not planted & set(left)
    # A query stays with the first source that has it.
    owners = {}
    for row in source.sft_rows:
        owners.setdefault(prompt_text(row).strip(), row["source"])
    assert all(owners[prompt_text(row).strip()] == row["source"] for row in prepared.sft_rows)
    assert set(left) == set(owners) - known


@pytest.mark.parametrize(("world", "task"), [("chain", chain), ("functions", functions)])
def test_the_rl_filter_finds_faulty_answers_and_suites(config, world, task):
    c = config(f"data_source={world}", "data.rl_rows=600", "data_source.faulty_rl_share=0.2")
    rows = load_embedded(c.data_source, c.data, c.teacher).rl_rows
    faulty = {r["id"] for r in rows if r["reward_model"]["ground_truth"] != task.ground_truth(prompt_text(r))}
    kept = {row["id"] for row in rows if why_not(row, 16) is None}
    assert 80 < len(faulty) < 160
    assert not faulty & kept
    assert len(kept) > 0.9 * (len(rows) - len(faulty))
    assert {row["id"] for row in prepare_data(c).rl_rows} == kept


def test_pass_at_k_by_hand():
    assert pass_at_k(16, 0, 16) == 0
    assert pass_at_k(16, 1, 16) == 1
    assert pass_at_k(20, 1, 16) == pytest.approx(16 / 20)
    assert pass_at_k(4, 1, 2) == pytest.approx(1 - 3 / 6)
    assert pass_at_k(4, 0, 16) == 0
    assert pass_at_k(0, 0, 16) == 0


@pytest.mark.parametrize("n", [1, 5, 16])
@pytest.mark.parametrize("k", [1, 3, 16])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n, k):
    from itertools import combinations

    for passed in range(n + 1):
        tries = [i < passed for i in range(n)]
        subsets = list(combinations(tries, min(k, n)))
        assert pass_at_k(n, passed, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_a_stronger_teacher_is_more_often_right_on_the_same_prompts(config):
    shares, prompts = [], []
    for teacher in ("weak", "medium", "strong"):
        rows = load(config, f"teacher={teacher}", "data.sft_rows=2000").sft_rows
        shares.append(sum(row["correct"] for row in rows) / len(rows))
        prompts.append([prompt_text(row) for row in rows])
    assert shares[0] + 0.05 < shares[1] < shares[2] - 0.05
    assert prompts[0] == prompts[1] == prompts[2]


ARMS = [
    "difficulty_filter=easy",
    "difficulty_filter=hard",
    "correctness=only_true",
    "data.subset=random",
    "data.embedding=tfidf",
]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_gets_the_same_budget(config, arm):
    prepared = prepare_data(config("data.sft_rows=1500", "data.sft_budget=300", arm))
    assert len(prepared.sft_rows) == 300
    counted = [step for step in prepared.steps if step["set"] == "sft"]
    for before, after in zip(counted, counted[1:]):
        assert before["kept"] == after["taken"]
        assert after["taken"] - after["kept"] == sum(after["dropped"].values())


def test_only_true_keeps_right_rows_and_top_sources_the_best(config):
    rows = prepare_data(config("correctness=only_true")).sft_rows
    assert rows and all(row["correct"] for row in rows)
    best = prepare_data(config("data_source.sources=6", "data.top_sources=2")).sft_rows
    assert {row["source"] for row in best} == {"curated", "textbook"}


def test_a_budget_that_cannot_be_met_says_how_many_are_left(config):
    with pytest.raises(ConfigError, match=r"data.sft_budget=300: only \d+ SFT rows are left by then"):
        prepare_data(config("data.sft_rows=200", "data.sft_budget=300"))


def test_a_step_that_empties_a_set_is_named_with_its_reasons(config):
    c = config("data_source=functions", "data.minimum_tests=17")
    with pytest.raises(ConfigError, match=r"data.filter_rl=true: left none of 32 rl rows \(32 fewer than 17 test"):
        prepare_data(c)


@pytest.mark.parametrize("world", WORLDS)
def test_a_prepared_set_is_byte_identical_for_the_same_config(config, tmp_path, world):
    c = config(
        f"data_source={world}", "data_source.sources=3", "data.sft_budget=200", "data_source.faulty_rl_share=0.1"
    )
    for name in "ab":
        (tmp_path / name).mkdir()
        save_prepared(prepare_data(c), tmp_path / name)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*")]
    assert len(files) == 4 + len(c.data_source.benchmark_steps) - 1
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


@pytest.mark.parametrize("world", WORLDS)
def test_sft_rl_and_benchmarks_share_no_prompt(config, world):
    c = config(f"data_source={world}", "data.filter_rl=false")
    prepared = prepare_data(dataclasses.replace(c, data=dataclasses.replace(c.data, rl_rows=300)))
    sets = [prepared.sft_rows, prepared.rl_rows, *prepared.benchmarks.values()]
    prompts = [{prompt_text(row) for row in rows} for rows in sets]
    assert len(set().union(*prompts)) == sum(map(len, prompts))


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ("data_source.sft_steps=[2,2] data.sft_rows=100 data_source.rl_steps=[4,6] data.rl_rows=4600", True),
        ("data_source.sft_steps=[2,2] data.sft_rows=4500 data_source.rl_steps=[4,6] data.rl_rows=4600", True),
        ("data_source.sft_steps=[2,2] data.sft_rows=4501 data_source.rl_steps=[4,6] data.rl_rows=10", False),
        ("data_source.sft_steps=[2,3] data.sft_rows=100 data_source.rl_steps=[2,2] data.rl_rows=4500", True),
        ("data_source.sft_steps=[2,2] data.sft_rows=100 data_source.rl_steps=[2,2] data.rl_rows=4500", False),
    ],
)
def test_only_prompts_of_the_same_lengths_are_in_each_others_way(config, sizes, fits):
    c = config("data.benchmark_rows=2", *sizes.split())
    if fits:
        source = load_embedded(c.data_source, c.data, c.teacher)
        prompts = {prompt_text(row) for row in (*source.sft_rows, *source.rl_rows)}
        assert len(prompts) == c.data.sft_rows + c.data.rl_rows
        return
    beside = " beside 4500 of other sets" if c.data.rl_rows == 4500 else ""
    said = f"{c.data.sft_rows} prompts of 2 to 2 steps{beside}, but there are only 9000 problems of that length"
    with pytest.raises(ConfigError, match=said):
        load_embedded(c.data_source, c.data, c.teacher)


def test_both_worlds_at_once_are_the_rows_of_each_with_ids_of_their_own(config):
    both = load_source(config("data_source=chain_and_functions"))
    apart = [load_source(config(f"data_source={world}")) for world in WORLDS]
    assert both.sft_rows == [row for source in apart for row in source.sft_rows]
    assert both.benchmarks == apart[0].benchmarks | apart[1].benchmarks
    ids = [row["id"] for row in both.rl_rows]
    assert len(set(ids)) == len(ids) == sum(len(source.rl_rows) for source in apart)
    assert [row["prompt"] for row in both.rl_rows] == [row["prompt"] for source in apart for row in source.rl_rows]


@pytest.mark.parametrize("subset", ["k_center", "random"])
def test_rows_kept_on_disk_go_through_the_same_steps_as_rows_in_memory(config, tmp_path, subset):
    made = load(config, "data_source.sources=10").sft_rows
    stream = random.Random(1)
    rows = [{**row, "difficulty": stream.choice([None, 0.1, 0.6])} for row in made]
    file = write(tmp_path / "rows.jsonl", [*rows, b"{broken", *rows[:30]])
    c = config(
        *("data_source=file", f"data_source.sft.files=[{file}]", "data.sft_rows=4025", "rl.steps=0"),
        *("data_source.quality_order=[curated,textbook,forum,synthetic]", "data.top_sources=3"),
        *("difficulty_filter=easy", "correctness=only_true", "data.on_bad_row=skip", "data.sft_budget=100"),
        f"data.subset={subset}",
    )
    held, stored = prepare_data(c), prepare_data(c, tmp_path)
    assert isinstance(stored.sft_rows, StoredRows) and isinstance(held.sft_rows, list)
    assert [*stored.sft_rows] == held.sft_rows and len(held.sft_rows) == 100
    assert stored.steps == held.steps and len(held.steps) == 8
    save_prepared(stored, tmp_path)
    assert [*load_prepared(tmp_path).sft_rows] == held.sft_rows


@pytest.mark.parametrize("name", ["rl.jsonl", "benchmarks/*.jsonl"])
def test_a_prepared_set_that_lost_whole_lines_is_damaged_unless_they_were_never_counted(config, tmp_path, name):
    save_prepared(prepare_data(config()), tmp_path)
    file = next(tmp_path.glob(name))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-2]))
    said = f"{file.relative_to(tmp_path)} has {len(lines) - 2} rows, where {len(lines)} were written"
    with pytest.raises(StorageError, match=f"damaged .{said}.; delete this folder"), reading(tmp_path):
        load_prepared(tmp_path)
    about = json.loads((tmp_path / "steps.json").read_text())
    del about["rows"]
    (tmp_path / "steps.json").write_text(json.dumps(about))
    with reading(tmp_path):
        load_prepared(tmp_path)
