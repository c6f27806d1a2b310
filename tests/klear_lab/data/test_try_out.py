"""Trying rows out: what a model passes is counted right, kept, and what the filters then go by."""

import pytest

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
    asked = []

    def sample(self, requests, sampling):
        policy, groups = self.policy, []
        for i, ids in enumerate(request.prompt_ids for request in requests):
            prompt = policy.codec.tokenizer.decode(ids, skip_special_tokens=True).strip()
            asked.append(prompt)
            answers = [solve(prompt) if n < i else "x" for n in range(sampling.samples)]
            asked_for = [{"role": "user", "content": prompt}]
            texts = [f"<think></think>{answer}" for answer in answers]
            groups.append([Response(policy.codec.encode_response(asked_for, text), False) for text in texts])
        return groups

    monkeypatch.setattr(TransformersSampler, "sample", sample)
    monkeypatch.setattr(module, "ROWS_A_CHUNK", 5)
    return asked


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
    (file,) = tmp_path.glob("tries-*.jsonl")
    file.write_text(file.read_text() + '{"id": "rl-7", "pas')  # a kill cut the next chunk short
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


@pytest.mark.parametrize("content", ["{garbage\n", "[]\n", '{"id": "rl-0"}\n', '{"id": "rl-0", "passed": "x"}\n'])
def test_a_damaged_file_of_counts_is_named(config, data, some_right, tmp_path, content):
    try_out(data, config(), "key", 4, tmp_path)
    (file,) = tmp_path.glob("tries-*.jsonl")
    file.write_text(content)
    with pytest.raises(
        StorageError, match=f"{file}: damaged; delete it, and the same command tries its rows again"
    ):
        try_out(data, config(), "key", 4, tmp_path)
