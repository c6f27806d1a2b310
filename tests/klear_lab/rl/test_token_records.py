"""Token records: every column against the step that it came from, and which steps and groups are kept."""

import pandas as pd
import pytest
import torch

from klear_lab.data.prepare import prepare_data
from klear_lab.policy.log_probs import response_log_probs
from klear_lab.rl import trainer
from klear_lab.rl.clip_methods import make_clip_method
from klear_lab.rl.loss import ScoredResponse
from klear_lab.rl.token_records import last_update_frame, responses_frame
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.verify.verifiers import Verifiers
from support.training import alternate_rewards, state_of


@pytest.fixture
def step(policy, config, monkeypatch):
    """One step of four prompts, each an update of its own, at a learning rate that moves ratios out of the bounds."""
    alternate_rewards(monkeypatch)
    overrides = ["rl.learning_rate=0.05", "rl.mini_batch_prompts=2", "rl.warmup_updates=0", "data.filter_rl=false"]
    c = config(*overrides, "clip_method.dual_clip=1.5")
    rows = prepare_data(c).rl_rows
    with Verifiers(rows, c.reward, workers=1, sandbox="auto") as verifiers:
        return trainer.train_step(state_of(policy, c), rows, c, verifiers, TransformersSampler(policy)), c


def test_a_record_is_the_last_updates_responses_in_order(policy, step):
    result, c = step
    frame = last_update_frame(policy.codec, result, c.rl.responses_per_prompt, prompts=9)
    assert frame["prompt_id"].unique().tolist() == [row["id"] for row in result.prompts[2:]]
    assert frame["prompt"].unique().tolist() == [row["prompt"][0]["content"] for row in result.prompts[2:]]
    assert len(frame) == len(result.updates[-1].result.tokens.weight)
    for _, response in frame.groupby(["prompt_id", "response"]):
        assert response["position"].tolist() == list(range(len(response)))
        assert "".join(response["token"]) == policy.codec.tokenizer.decode(response["token_id"].tolist())
        assert response["advantage"].nunique() == 1


def test_its_weights_and_regions_are_the_clip_methods(policy, step):
    result, c = step
    frame = last_update_frame(policy.codec, result, c.rl.responses_per_prompt, prompts=9)
    log_prob, old, advantage = (
        torch.tensor(frame[n].to_numpy()) for n in ("log_prob", "old_log_prob", "advantage")
    )
    log_prob.requires_grad_()
    output = make_clip_method(**c.clip_method)(log_prob, old, advantage)
    output.objective.sum().backward()
    assert torch.equal(torch.tensor(frame["weight"].to_numpy()), log_prob.grad)
    assert frame["ratio"].to_numpy() == pytest.approx((log_prob - old).exp().tolist())
    for region in ("low", "high", "dual"):
        assert (frame["region"] == region).tolist() == getattr(output, region).tolist()
    assert {*frame["region"]} == {"none", "low", "high", "dual"}


def test_no_more_groups_are_kept_than_asked_for(policy, step):
    result, c = step
    frame = last_update_frame(policy.codec, result, c.rl.responses_per_prompt, prompts=1)
    assert frame["prompt_id"].unique().tolist() == [result.prompts[-1]["id"]]
    assert frame["response"].nunique() == c.rl.responses_per_prompt


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        (["token_records.every=2"], [2, 3]),
        pytest.param(["token_records.every=null"], [], marks=pytest.mark.slow),
        pytest.param(["token_records.every=1"], [1, 2, 3], marks=pytest.mark.slow),
    ],
)
def test_a_run_keeps_the_steps_asked_for_and_the_last(run, overrides, steps):
    folder = run("rl.steps=3", "eval.every=9", *overrides)
    names = sorted(path.name for path in (folder.path / "rollouts").glob("*"))
    assert names == [f"step_{step:06d}.parquet" for step in steps]
    for name in names:
        assert len(pd.read_parquet(folder.path / "rollouts" / name)) > 0


def test_every_step_has_its_line_of_probes(run):
    folder = run("rl.steps=3", "eval.every=9")
    lines = folder.lines("probes.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    counted = {name: sum(h["counts"]) for name, h in lines[0]["histograms"].items()}
    assert len(set(counted.values())) == 1 and min(counted.values()) > 0


def test_a_batch_that_was_not_applied_is_kept_with_all_that_made_its_loss(policy):
    scored = ScoredResponse(
        policy.codec.tokenizer.encode("1+2="), policy.codec.tokenizer.encode("3"), True, False, 0.5, 0
    )
    with torch.no_grad():
        log_prob_T, _ = response_log_probs(policy, [scored])
    old = {0: log_prob_T}
    frame = responses_frame(policy.codec, [([scored], old), ([scored, scored], old)])
    assert frame["batch"].tolist() == [0, 1, 1]
    row = frame.iloc[0]
    assert (row["prompt"], row["response"], row["advantage"], row["truncated"]) == ("1+2=", "3", 0.5, True)
    assert row["old_log_prob"] == pytest.approx(log_prob_T.tolist())


@pytest.mark.parametrize("samples", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_records_go_by_the_responses_of_the_phase(run, samples):
    phases = f"[{{responses_per_prompt: {samples}}}]"
    folder = run("rl.responses_per_prompt=4", f"rl.phases={phases}", "rl.steps=1", "token_records.every=1")
    frame = pd.read_parquet(folder.path / "rollouts" / "step_000001.parquet")
    assert frame["response"].max() < samples
    by_prompt = frame.groupby("prompt_id")["prompt"].nunique()
    assert (by_prompt == 1).all() and frame["prompt"].nunique() == len(by_prompt)
