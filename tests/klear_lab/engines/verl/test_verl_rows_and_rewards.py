"""Rows read by verl's own data set class, and responses scored through its own reward worker."""

import asyncio

import pytest

pytest.importorskip("verl.protocol", reason="verl has an environment of its own: make test-verl")

import numpy as np
import pandas as pd
import torch
from omegaconf import open_dict
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.protocol import DataProto
from verl.trainer.ppo.utils import create_rl_dataset
from verl.utils import hf_tokenizer
from verl.utils.dataset.rl_dataset import collate_fn

from klear_lab.config import ModelConfig
from klear_lab.engines.verl import files
from klear_lab.engines.verl.reward import stop_tokens
from klear_lab.policy.model import load_policy
from klear_lab.verify.rewards import score_responses
from klear_lab.verify.verifiers import Verifiers
from support.models import CHATML, save_model
from support.verl_cpu import compose_config

pytestmark = pytest.mark.verl


@pytest.fixture
def place(dry_run, monkeypatch):
    """What verl is started with, its model included."""
    monkeypatch.setattr(files, "check_with_verl", lambda place: None)
    place = dry_run()
    policy = load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2), torch.device("cpu"), 0)
    files.save_start(policy, place / "start")
    return place


def read(place, name="data.train_files"):
    config = compose_config(place)
    tokenizer = hf_tokenizer(str(place / "start"))
    files = config.data.train_files if name == "data.train_files" else config.data.val_files
    return create_rl_dataset(files, config.data, tokenizer, None)


@pytest.mark.parametrize("name", ["data.train_files", "data.val_files"])
def test_verls_data_set_reads_the_rows_whole(place, name):
    dataset = read(place, name)
    file = "train" if name == "data.train_files" else "benchmarks"
    table = pd.read_parquet(place / f"{file}.parquet")
    assert len(dataset) == len(table) > 3
    batch = collate_fn([dataset[i] for i in range(3)])
    assert [row["id"] for row in batch["extra_info"]] == [row["id"] for row in table["extra_info"][:3]]
    assert [prompt[0]["content"] for prompt in batch["raw_prompt"]] == [
        p[0]["content"] for p in table["prompt"][:3]
    ]
    assert [*batch["data_source"]] == [*table["data_source"][:3]]
    assert [*batch["index"]] == [0, 1, 2]


def score_with_verl(config, dataset, index, codec, text, step):
    """The reward and what goes with it, as verl's agent loop asks for them."""
    row = dataset[index]
    ids = codec.encode_response(row["raw_prompt"], text)
    prompt = torch.tensor([codec.encode_prompt(row["raw_prompt"])])
    response = torch.tensor([ids])
    batch = {
        "prompts": prompt,
        "responses": response,
        "attention_mask": torch.ones(1, prompt.shape[1] + len(ids), dtype=torch.int64),
    }
    kinds = ("raw_prompt", "data_source", "reward_model", "extra_info")
    found = {key: np.array([row[key]], dtype=object) for key in kinds}
    found["raw_prompt"] = np.empty(1, dtype=object)
    found["raw_prompt"][0] = row["raw_prompt"]
    data = DataProto.from_dict(tensors=batch, non_tensors=found | {"global_steps": np.array([step])})
    worker = RewardLoopWorker(config)
    return asyncio.get_event_loop().run_until_complete(worker.compute_score(data))


RESPONSES = {
    "right": "<think>so</think>{answer}",
    "wrong": "<think>so</think>no",
    "no thought": "{answer}",
    "thought twice": "<think>a</think><think>b</think>{answer}",
    "no start": "so</think>{answer}",
}


@pytest.mark.parametrize("form", RESPONSES)
def test_rewards_are_ours_with_a_special_token_for_a_thought(place, config, form):
    own, dataset = compose_config(place), read(place)
    policy = load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2), torch.device("cpu"), 0)
    row = dataset[0]
    text = RESPONSES[form].format(answer=row["reward_model"]["ground_truth"])
    found = score_with_verl(own, dataset, 0, policy.codec, text, step=1)
    ours = {**row, "id": row["extra_info"]["id"]}
    settings = config()
    with Verifiers([ours], settings.reward, 1, "auto") as verifiers:
        expected = score_responses([text], [ours], settings.reward, verifiers)[0]
    assert found["reward_score"] == expected.reward
    about = found["reward_extra_info"]
    assert (about["acc"], about["reason"], about["raw"]) == (
        float(expected.correct),
        expected.reason,
        expected.raw,
    )
    assert about["truncated"] is False and about["benchmark"] == ""


def test_the_model_to_start_from_names_all_of_our_stop_tokens(tmp_path):
    folder = save_model(tmp_path / "model")  # its generation config stops at token 0, its template at another
    policy = load_policy(ModelConfig(name="path", path=str(folder)), torch.device("cpu"), 0)
    files.save_start(policy, tmp_path / "start")
    assert stop_tokens(str(tmp_path / "start")) == policy.codec.stop_token_ids != stop_tokens(str(folder))


def test_a_template_that_opens_the_thought_is_heard(place, tmp_path):
    opened = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    folder = save_model(tmp_path / "model", template=opened)
    own, dataset = compose_config(place), read(place)
    with open_dict(own):
        own.actor_rollout_ref.model.path = str(folder)
    policy = load_policy(ModelConfig(name="path", path=str(folder)), torch.device("cpu"), 0)
    truth = dataset[0]["reward_model"]["ground_truth"]
    found = score_with_verl(own, dataset, 0, policy.codec, f"<think>\nso</think>{truth}", step=1)
    assert found["reward_score"] == 1.0


def test_programs_run_on_the_test_cases_that_our_own_loop_draws(dry_run, config, monkeypatch):
    monkeypatch.setattr(files, "check_with_verl", lambda place: None)
    place = dry_run("data_source=functions", "reward.max_test_cases=2", "data.decontaminate_ngram=null")
    policy = load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2), torch.device("cpu"), 0)
    files.save_start(policy, place / "start")
    own, dataset = compose_config(place), read(place)
    row = dataset[0]
    ours, settings = {**row, "id": row["extra_info"]["id"]}, config("reward.max_test_cases=2").reward
    text = "<think>so</think>```python\nprint(0)\n```"
    with Verifiers([ours], settings, 1, "auto") as verifiers:
        for step in (1, 2):
            expected = score_responses([text], [ours], settings, verifiers, f"0-tests-{step}")[0]
            found = score_with_verl(own, dataset, 0, policy.codec, text, step)
            assert (found["reward_score"], found["reward_extra_info"]["reason"]) == (
                expected.reward,
                expected.reason,
            )
