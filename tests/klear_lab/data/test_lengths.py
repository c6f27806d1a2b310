"""Prompt lengths: too long prompts leave and are counted, what leaves no room is refused before anything trains."""

import logging

import pytest

from klear_lab.config import ConfigError
from klear_lab.data import lengths
from klear_lab.data.lengths import PROMPT_TOKENS, check_positions, encode_prompts, fit_prompts
from klear_lab.data.prepare import PreparedData
from klear_lab.policy.codec import make_codec
from klear_lab.policy.model import character_tokenizer
from klear_lab.storage.interruption import Stop
from support.architectures import USUAL, save_folder
from support.models import save_model
from support.tokens import examples_of


def asked(row_id, length, role="user"):
    return {"id": row_id, "prompt": [{"role": role, "content": "7" * length}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of 128 positions, a token for each character."""
    return save_folder(tmp_path_factory.mktemp("model"), "llama", **USUAL)


@pytest.fixture
def fit(config, folder, tmp_path):
    """A function from prompt lengths and overrides to what is left."""

    def run(prompts, *overrides, model=("model=path", f"model.path={folder}")):
        rl = [asked(f"rl-{i}", length) for i, length in enumerate(prompts)]
        data = PreparedData([], rl, {"chain": [asked(f"b-{i}", length) for i, length in enumerate(prompts)]}, [])
        return fit_prompts(data, config(*model, f"cache_dir={tmp_path}", *overrides), str(prompts), Stop())

    return run


def test_long_prompts_leave_and_are_counted(fit, caplog):
    with caplog.at_level(logging.WARNING):
        data = fit([3, 60, 61, 200], "data.max_prompt_tokens=60")
    assert [row["id"] for row in data.rl_rows] == ["rl-0", "rl-1"]
    assert [row["id"] for row in data.benchmarks["chain"]] == ["b-0", "b-1"]
    step = {
        "step": "data.max_prompt_tokens=60",
        "taken": 4,
        "kept": 2,
        "dropped": {"prompt of more than 60 tokens": 2},
    }
    assert data.steps == [{**step, "set": "rl"}, {**step, "set": "chain"}]
    assert "2 of 4 problems of chain leave, and avg@n is of the others" in caplog.text


def test_lengths_are_counted_once_for_each_tokenizer_and_set_of_prompts(fit, tmp_path, monkeypatch):
    first = fit([3, 60], "data.max_prompt_tokens=60")
    counted = []
    monkeypatch.setattr(
        lengths, "encode_prompts", lambda codec, rows, name: counted.append(name) or [[7]] * len(rows)
    )
    assert fit([3, 60], "data.max_prompt_tokens=60") == first and counted == []
    assert len(fit([3, 60], "data.max_prompt_tokens=3").rl_rows) == 1 and counted == []
    fit([3, 61], "data.max_prompt_tokens=60")
    assert counted == ["rl", "chain"]
    fit([3, 60], model=("model=path", f"model.path={save_model(tmp_path / 'other')}"))
    assert counted == ["rl", "chain"] * 2


def test_a_model_from_scratch_keeps_all_unless_a_limit_is_set(fit):
    assert len(fit([3, 5000], model=()).rl_rows) == 2
    assert fit([3, 5000], model=()).steps == []
    assert len(fit([3, 5000], "data.max_prompt_tokens=9", model=()).rl_rows) == 1


def test_a_folder_has_a_limit_of_its_own_accord(fit):
    assert len(fit([3, PROMPT_TOKENS + 1]).rl_rows) == 1


def test_a_limit_that_leaves_no_row_is_refused(fit):
    with pytest.raises(ConfigError, match="data.max_prompt_tokens=2: left none of 2 rl rows"):
        fit([3, 4], "data.max_prompt_tokens=2")


def test_a_response_beyond_the_positions_is_refused(fit):
    fit([112])  # and 16 response tokens are 128
    with pytest.raises(
        ConfigError, match="rl.max_response_tokens=16: .*prompt of rl with 113.*128 posit.*at most 15 "
    ):
        fit([113])
    with pytest.raises(ConfigError, match="eval.response_budget=2.0: responses of 32 tokens, .*prompt of chain"):
        fit([112], "eval.response_budget=2")
    fit([112, 113], "data.max_prompt_tokens=112")


def test_the_limit_makes_no_data_or_sft_anew(run):
    first, second = (run("rl.steps=0", *more).record for more in ([], ["data.max_prompt_tokens=99"]))
    assert [second["stages"][name]["from_cache"] for name in ("data", "sft")] == [True, True]
    assert first["run_id"] != second["run_id"]


def test_without_rl_its_rows_do_not_matter(fit):
    assert len(fit([3, 60], "rl.steps=0", "data.max_prompt_tokens=10").rl_rows) == 2


def test_sft_rows_beyond_the_positions_are_refused():
    check_positions(128, 200, 128, "folder")
    check_positions(129, 200, None, "folder")
    check_positions(129, 200, 128, None)  # from scratch: rotations have no last position
    with pytest.raises(ConfigError, match="sft.max_tokens=200: there are rows of up to 129 tokens.*at most 128"):
        check_positions(129, 200, 128, "folder")


def test_a_row_that_the_template_cannot_write_is_named():
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}"
    )
    codec = make_codec(tokenizer, None, {})
    rows = [asked("one", 3), asked("two", 3, role="system")]
    with pytest.raises(
        ConfigError, match="can't write the rl row two .'777'; TemplateError: System role not supp"
    ):
        encode_prompts(codec, rows, "rl")
    with pytest.raises(ConfigError, match="can't write the SFT row two"):
        examples_of(codec, [{**row, "response": "<think>7</think>7"} for row in rows], 99)


def test_a_run_stops_before_it_trains_and_its_record_counts_what_left(run, folder):
    model = ("model=path", f"model.path={folder}", "sft.steps=1", "rl.steps=1")
    with pytest.raises(ConfigError, match="rl.max_response_tokens=127: "):
        run(*model, "rl.max_response_tokens=127")
    with pytest.raises(ConfigError, match="sft.max_tokens=400: there are rows of up to"):
        run(*model, "sft.max_tokens=400", "data_source.sft_steps=[20,30]")
    record = run(*model, "data.max_prompt_tokens=90", "rl.max_response_tokens=8").record
    assert record["status"] == "finished"
    assert "data.max_prompt_tokens=90" in [step["step"] for step in record["data"] if step["set"] == "rl"]
