"""Trying rows out: what a model passes is counted right, kept, and what the filters then go by."""

import dataclasses
import subprocess
import sys
import time

import pandas as pd
import pytest

from klear_lab.config import ConfigError
from klear_lab.data import try_out as module
from klear_lab.data.prepare import prepare_data
from klear_lab.data.read_rows import read_rows
from klear_lab.data.rl_filters import why_not
from klear_lab.data.try_out import try_out
from klear_lab.data.write_parquet import write_parquet
from klear_lab.rows import prompt_text
from klear_lab.sampling.transformers import Response, TransformersSampler
from klear_lab.storage.files import StorageError
from klear_lab.worlds.chain import solve


@pytest.fixture
def some_right(monkeypatch):
    """A model that solves prompt i of a chunk in i of its 4 completions; returns the prompts it was asked."""
    asked, seeds = [], []

    def sample(self, requests, sampling):
        policy, groups = self.policy, []
        for i, request in enumerate(requests):
            prompt = policy.codec.tokenizer.decode(request.prompt_ids, skip_special_tokens=True).strip()
            asked.append(prompt)
            seeds.extend(request.seeds)
            answers = [solve(prompt) if n < i else "x" for n in range(sampling.samples)]
            asked_for = [{"role": "user", "content": prompt}]
            texts = [f"<think></think>{answer}" for answer in answers]
            groups.append([Response(policy.codec.encode_response(asked_for, text), False) for text in texts])
        return groups

    monkeypatch.setattr(TransformersSampler, "sample", sample)
    monkeypatch.setattr(module, "RESPONSES_A_CHUNK", 20)
    yield asked
    assert len(set(seeds)) >= 20  # each completion of a row, and each row, has a seed of its own


@pytest.fixture
def data(config):
    return prepare_data(config("data.filter_rl=false", "data.rl_rows=10"))


def test_passes_are_counted_and_the_filters_go_by_them(config, data, some_right, tmp_path):
    tried = try_out(data, config(), "key", 4, tmp_path)
    assert [row["passed"] for row in tried.rl_rows] == [0, 1, 2, 3, 4] * 2
    assert {row["completions"] for row in tried.rl_rows} == {4}
    assert [why_not(row, 16) is None for row in tried.rl_rows] == [False, False, False, True, True] * 2
    write_parquet(tried, tmp_path)
    assert read_rows([str(tmp_path / "rl.parquet")], None, "rl").rows == tried.rl_rows


def test_what_is_done_is_not_done_again(config, data, some_right, tmp_path, monkeypatch):
    real = module.count_passed

    def stop_at_the_second_chunk(codec, sampler, rows, *rest):
        if rows[0]["id"] != data.rl_rows[0]["id"]:
            raise KeyboardInterrupt
        return real(codec, sampler, rows, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "count_passed", stop_at_the_second_chunk)
        try_out(data, config(), "key", 4, tmp_path)
    assert len(some_right) == 5
    assert len([*tmp_path.glob("tries-*/*.json")]) == 1
    tried = try_out(data, config(), "key", 4, tmp_path)
    assert some_right == [prompt_text(row) for row in data.rl_rows]
    assert tried == try_out(data, config(), "key", 4, tmp_path)
    assert len(some_right) == 10
    assert tried == try_out(data, config(), "key", 4, tmp_path / "elsewhere")


def test_other_settings_are_counted_anew(config, data, some_right, tmp_path):
    try_out(data, config(), "key", 4, tmp_path)
    for other, key, completions in [
        (config("eval.temperature=1"), "key", 4),
        (config("sft.seed=1"), "key", 4),
        (config(), "other", 4),
        (config(), "key", 2),
    ]:
        some_right.clear()
        try_out(data, other, key, completions, tmp_path)
        assert len(some_right) == 10


def test_sft_rows_without_a_difficulty_get_that_of_their_prompt(config, data, some_right, tmp_path):
    prompts = [row["prompt"] for row in data.rl_rows]
    rows = [
        {**data.sft_rows[0], "prompt": prompts[3], "difficulty": None},
        {**data.sft_rows[0], "prompt": prompts[3], "difficulty": 0.9},
        {**data.sft_rows[0], "difficulty": None},
    ]
    data.sft_rows[:] = rows
    tried = try_out(data, config(), "key", 4, tmp_path)
    assert [row["difficulty"] for row in tried.sft_rows] == [0.25, 0.9, None]


@pytest.mark.parametrize("content", ["{garbage", "[]", '{"rl-0": "x"}', '{"rl-0": [1]}', ""])
def test_a_damaged_file_of_counts_is_named(config, data, some_right, tmp_path, content):
    try_out(data, config(), "key", 4, tmp_path)
    file, _ = sorted(tmp_path.glob("tries-*/*.json"))
    file.write_text(content)
    with pytest.raises(
        StorageError, match=f"{file}: damaged; delete it, and the same command tries its rows again"
    ):
        try_out(data, config(), "key", 4, tmp_path)


def test_rows_with_too_long_prompts_are_not_tried_and_stay(config, data, some_right, tmp_path, caplog):
    lengths = sorted({len(prompt_text(row)) for row in data.rl_rows})
    bound = lengths[-1] - 1
    tried = try_out(data, config(f"data.max_prompt_tokens={bound}"), "key", 4, tmp_path)
    asked = {prompt_text(row) for row in tried.rl_rows if row["completions"] == 4}
    assert asked == set(some_right) and 0 < len(asked) < 10
    assert f"{10 - len(asked)} of 10 RL rows were not tried" in caplog.text


def test_counts_do_not_depend_on_the_size_of_a_chunk(config, data, tmp_path, monkeypatch):
    found = []
    for size in (1, 6, 2048):
        monkeypatch.setattr(module, "RESPONSES_A_CHUNK", size)
        tried = try_out(data, config("eval.temperature=1.0"), "key", 2, tmp_path / str(size))
        found.append([row["passed"] for row in tried.rl_rows])
    assert found[0] == found[1] == found[2]


def test_rows_that_share_an_id_are_refused_before_any_is_tried(config, data, some_right, tmp_path):
    twins = dataclasses.replace(data, rl_rows=[data.rl_rows[0], {**data.rl_rows[1], "id": "rl-0"}])
    with pytest.raises(ConfigError, match=r"data-key: 2 RL rows have the id 'rl-0'.*delete this folder"):
        try_out(twins, config(), "key", 4, tmp_path)
    assert not some_right
    try_out(data, config(), "key", 4, tmp_path)  # for the seeds that the fixture counts


def test_a_row_that_was_tried_no_times_has_no_difficulty_to_give(config, data, some_right, tmp_path):
    longest = max(data.rl_rows, key=lambda row: len(prompt_text(row)))
    bound = len(prompt_text(longest)) - 1
    longest |= {"completions": 0, "passed": 0}
    data.sft_rows[:] = [{**data.sft_rows[0], "prompt": longest["prompt"], "difficulty": None}]
    tried = try_out(data, config(f"data.max_prompt_tokens={bound}"), "key", 4, tmp_path)
    assert [row["difficulty"] for row in tried.sft_rows] == [None]
    try_out(data, config(), "key", 4, tmp_path)


COMMAND = [*(sys.executable, "-m", "klear_lab.data", "scale=smoke", "sft.steps=0", "data.rl_rows=400"),
           *("data.filter_rl=false", "model.hidden_size=8", "model.layers=1", "model.heads=1", "cpu_threads=1"),
           *("eval.batch_sequences=512", "rl.max_response_tokens=4", "--completions", "16", "--samples", "0")]  # fmt: skip


@pytest.mark.slow
def test_processes_share_the_chunks_and_one_that_is_killed_leaves_its_own_to_the_others(tmp_path):
    def start():
        return subprocess.Popen([*COMMAND, "--out", "tried"], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                                stdout=subprocess.DEVNULL)  # fmt: skip

    first, second = start(), start()
    while not [*tmp_path.glob("tried/tries-*/*.json")]:
        assert first.poll() is None and second.poll() is None, first.stderr.read() + second.stderr.read()
        time.sleep(0.05)
    first.kill()
    third = start()
    for process in (second, third):
        _, said = process.communicate(timeout=200)
        assert process.returncode == 0, said
    shared = pd.read_parquet(tmp_path / "tried" / "rl.parquet")
    alone = subprocess.run([*COMMAND, "--out", "alone"], cwd=tmp_path, capture_output=True, check=True)
    assert alone.returncode == 0
    pd.testing.assert_frame_equal(shared, pd.read_parquet(tmp_path / "alone" / "rl.parquet"))
    assert (shared["completions"] == 16).all()
