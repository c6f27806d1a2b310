"""The RL step: prompts, groups, mini-batches, what is dropped and masked, determinism."""

import json
import math
import shutil

import pytest
import torch

from klear_lab.data.prepare import prepare_data
from klear_lab.policy.codec import Codec
from klear_lab.policy.model import load_policy
from klear_lab.policy.training_state import apply_gradient, load_checkpoint, save_checkpoint
from klear_lab.rl import trainer
from klear_lab.sampling.transformers import Response, TransformersSampler
from klear_lab.verify import rewards as rewards
from klear_lab.verify.verifiers import Verifiers
from support.training import alternate_rewards, scored, state_of, weights


@pytest.fixture
def rows(config):
    return prepare_data(config("data.filter_rl=false")).rl_rows


def timeless(metrics):
    return {k: v for k, v in metrics.items() if not k.startswith(("time/", "perf/"))}


def train_step(state, rows, c):
    with Verifiers(rows, c.reward, workers=1, sandbox="auto") as verifiers:
        return trainer.train_step(state, rows, c, verifiers, TransformersSampler(state.policy)).metrics


@pytest.mark.parametrize(
    ("groups", "size", "parts"), [(8, 4, [4, 4]), (9, 4, [3, 3, 3]), (5, 4, [2, 3]), (1, 4, [1]), (0, 4, [])]
)
def test_mini_batches_are_nearly_equal_and_never_too_large(groups, size, parts):
    split = trainer.split_evenly(list(range(groups)), size)
    assert [len(part) for part in split] == parts
    assert [g for part in split for g in part] == list(range(groups))


def test_a_step_moves_the_weights_and_is_the_same_twice(policy, config, rows, monkeypatch):
    before = {k: v.clone() for k, v in policy.model.state_dict().items()}
    results = []
    for _ in range(2):
        alternate_rewards(monkeypatch)
        policy.model.load_state_dict(before)
        state = state_of(policy, config())
        metrics = train_step(state, rows, config())
        results.append((timeless(metrics), weights(policy)))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(results[0][1], before.values(), strict=False))


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_first_mini_batch_has_ratio_one(policy, config, rows, monkeypatch, temperature):
    alternate_rewards(monkeypatch)
    c = config("rl.mini_batch_prompts=4", f"rl.temperature={temperature}")
    metrics = train_step(state_of(policy, c), rows, c)
    assert metrics["optim/updates"] == 1
    assert metrics["ratio/max"] == metrics["ratio/p01"] == 1.0
    assert metrics["clip/low_fraction"] == metrics["clip/high_fraction"] == metrics["policy/kl_old"] == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_ratio_is_exactly_one_while_the_weights_stand_still(config, rows, monkeypatch, precision):
    """Old log-probabilities are recorded with the cuts of the updates, so that their last bits agree too."""
    alternate_rewards(monkeypatch)
    limits = ("rl.micro_batch_sequences=3", "rl.micro_batch_tokens=90")
    c = config("rl.learning_rate=0", "rl.mini_batch_prompts=1", f"model.precision={precision}", *limits)
    policy = load_policy(c.model, torch.device("cpu"), seed=0)
    metrics = train_step(state_of(policy, c), rows, c)
    assert metrics["optim/updates"] == 4
    assert metrics["ratio/max"] == metrics["ratio/p01"] == 1.0
    assert metrics["policy/kl_old"] == 0


def test_the_measures_of_a_steps_updates_lie_in_one_place(policy, config, rows, monkeypatch):
    """So that the tokens of long responses are in memory once."""
    alternate_rewards(monkeypatch)
    c = config("rl.mini_batch_prompts=1", "rl.epochs=2")
    with Verifiers(rows, c.reward, workers=1, sandbox="auto") as verifiers:
        result = trainer.train_step(state_of(policy, c), rows, c, verifiers, TransformersSampler(policy))
    for name, whole in vars(result.tokens).items():
        parts = [getattr(update.result.tokens, name) for update in result.updates]
        assert sum(map(len, parts)) == len(whole)
        assert {part.untyped_storage().data_ptr() for part in parts} == {whole.untyped_storage().data_ptr()}


def test_off_policy_mini_batches_move_the_ratio(policy, config, rows, monkeypatch):
    alternate_rewards(monkeypatch)
    c = config("rl.learning_rate=0.05", "rl.mini_batch_prompts=1")
    metrics = train_step(state_of(policy, c), rows, c)
    assert metrics["optim/updates"] == 4
    assert metrics["ratio/max"] > 1.01


def test_a_second_epoch_updates_on_the_same_mini_batches_off_policy(policy, config, rows, monkeypatch):
    seen, real = [], trainer.backward
    monkeypatch.setattr(
        trainer,
        "backward",
        lambda p, rollouts, *a, **k: (
            seen.append([r.number for part in rollouts for r in part]) or real(p, rollouts, *a, **k)
        ),
    )
    alternate_rewards(monkeypatch)
    c = config("rl.learning_rate=0.05", "rl.mini_batch_prompts=4", "rl.epochs=2")
    metrics = train_step(state_of(policy, c), rows, c)
    assert metrics["optim/updates"] == 2
    assert seen[0] == seen[1] and sorted(seen[0]) == [*range(16)]
    assert metrics["ratio/max"] > 1.01  # with one epoch this is 1: test_first_mini_batch_has_ratio_one


SWITCHES = [
    *(
        "clip_method=clip_higher",
        "clip_method.eps_low=0.02",
        "clip_method.eps_high=0.02",
        "clip_method.dual_clip=1.3",
    ),
    *(
        "rl.alpha=0.5",
        "rl.epochs=2",
        "rl.mini_batch_prompts=4",
        "rl.token_mean=micro_batch",
        "rl.divide_by_std=false",
    ),
    *("rl.mask_overlong=true", "rl.drop_zero_advantage=true", "rl.learning_rate=0.04", "rl.max_grad_norm=0.01"),
]


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_changes_the_update(policy, config, rows, monkeypatch, switch):
    """Three groups of unequal soft rewards and one of equal ones; two responses of each group are truncated."""
    start = {k: v.clone() for k, v in policy.model.state_dict().items()}
    groups = [[Response([7 + i, 8, 9 + g][: 3 - i % 2], truncated=i > 1) for i in range(4)] for g in range(4)]
    monkeypatch.setattr(TransformersSampler, "sample", lambda *_: groups)
    found = []
    for overrides in ([], [switch]):
        given = iter([1.0, 0.5, -1.0, -1.0] * 3 + [1.0] * 4)
        monkeypatch.setattr(
            rewards, "score_responses", lambda texts, *_, r=given: [scored(next(r)) for _ in texts]
        )
        policy.model.load_state_dict(start)
        c = config("rl.learning_rate=0.05", "rl.warmup_updates=0", "rl.micro_batch_sequences=3", *overrides)
        train_step(state_of(policy, c), rows, c)
        found.append(weights(policy))
    assert any(not torch.allclose(a, b, rtol=1e-9, atol=0) for a, b in zip(*found, strict=True))


def test_groups_without_advantage_are_dropped_or_kept_as_asked(policy, config, rows):
    dropping, keeping = config("rl.drop_zero_advantage=true"), config("rl.drop_zero_advantage=false")
    before = weights(policy)
    dropped = train_step(state_of(policy, dropping), rows, dropping)
    assert dropped["rollout/zero_advantage_fraction"] == 1.0
    assert dropped["optim/updates"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))
    kept = train_step(state_of(policy, keeping), rows, keeping)
    assert kept["optim/updates"] == 2


def test_a_group_stays_whose_first_reward_is_its_mean(policy, config, rows, monkeypatch):
    given = iter([0.0, 1.0, -1.0, 0.0] * 4)
    monkeypatch.setattr(rewards, "score_responses", lambda texts, *_: [scored(next(given)) for _ in texts])
    metrics = train_step(state_of(policy, config("rl.drop_zero_advantage=true")), rows, config())
    assert metrics["rollout/zero_advantage_fraction"] == 0
    assert metrics["optim/updates"] == 2


@pytest.mark.parametrize(("mask_overlong", "tokens"), [(True, 8), (False, 32)])
def test_truncated_responses_leave_the_loss_only_where_masked(
    policy, config, rows, monkeypatch, mask_overlong, tokens
):
    alternate_rewards(monkeypatch)
    groups = [[Response([7, 8], truncated=i > 0) for i in range(4)] for _ in range(4)]
    monkeypatch.setattr(TransformersSampler, "sample", lambda *_: groups)
    seen = []
    monkeypatch.setattr(trainer, "clip_metrics", lambda record: seen.append(len(record.weight)) or {})
    c = config(f"rl.mask_overlong={mask_overlong}")
    metrics = train_step(state_of(policy, c), rows, c)
    assert (seen, metrics["rollout/truncated_fraction"]) == ([tokens], 0.75)


def test_learning_rate_warms_up_then_stays(config):
    rl = config("rl.warmup_updates=4", "rl.learning_rate=0.1").rl
    rates = [trainer.learning_rate(rl, updates, rollouts=updates // 2) for updates in range(6)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_warm_up_by_rollouts_begins_at_nothing_and_gives_a_rollouts_updates_one_rate(config):
    rl = config("rl.warmup_updates=2", "rl.learning_rate=0.1", "rl.warmup_unit=rollout").rl
    rates = [trainer.learning_rate(rl, updates, rollouts=updates // 3) for updates in range(9)]
    assert rates == pytest.approx([0, 0, 0, 0.05, 0.05, 0.05, 0.1, 0.1, 0.1])


def test_warm_up_by_rollouts_starts_anew_with_each_phase(policy, config, rows, monkeypatch):
    alternate_rewards(monkeypatch)
    c = config("rl.phases=[{steps: 2},{steps: 2}]", "rl.warmup_unit=rollout", "rl.warmup_updates=2",
               "rl.learning_rate=0.01")  # fmt: skip
    state, rates = state_of(policy, c), []
    for _ in range(4):
        rates.append(train_step(state, rows, c)["optim/lr"])
    assert rates == pytest.approx([0, 0.005, 0, 0.005])


def test_gradient_norm_is_reported_before_clipping(policy, config):
    state = state_of(policy, config())
    for p in policy.model.parameters():
        p.grad = torch.ones_like(p)
    count = sum(p.numel() for p in policy.model.parameters())
    assert apply_gradient(state, "rl", 0.1, max_grad_norm=1.0) == pytest.approx(math.sqrt(count))


def test_a_gradient_that_is_not_finite_stops_before_the_update(policy, config):
    state, before = state_of(policy, config()), weights(policy)
    for p in policy.model.parameters():
        p.grad = torch.full_like(p, math.nan)
    with pytest.raises(
        FloatingPointError, match="RL step 1: the gradient norm is nan; the update was not applied"
    ):
        apply_gradient(state, "rl", 0.1, max_grad_norm=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(policy), strict=True))


def test_a_checkpoint_goes_on_bit_for_bit(policy, config, rows, monkeypatch, tmp_path):
    c = config()
    alternate_rewards(monkeypatch)
    state = state_of(policy, c)
    train_step(state, rows, c)
    save_checkpoint(state, tmp_path / "checkpoint.pt")
    straight = timeless(train_step(state, rows, c)), weights(policy)
    for p in policy.model.parameters():
        p.data.zero_()
    resumed = state_of(policy, c)
    load_checkpoint(resumed, tmp_path / "checkpoint.pt")
    again = timeless(train_step(resumed, rows, c)), weights(policy)
    assert straight[0] == again[0]
    assert all(torch.equal(a, b) for a, b in zip(straight[1], again[1], strict=True))


def test_the_first_steps_metrics_are_the_recorded_ones(policy, config, rows, monkeypatch):
    """Golden: a change that should have no effect must leave them; one that should have must say so here."""
    alternate_rewards(monkeypatch)
    c = config("rl.learning_rate=0.01", "rl.mini_batch_prompts=1", "rl.warmup_updates=0")
    metrics = train_step(state_of(policy, c), rows, c)
    want = {
        "loss/policy": 0.01111370802042,
        "loss/sft": 4.53155378210241,
        "optim/grad_norm": 0.93107307965043,
        "ratio/p99": 1.60261237325387,
        "policy/entropy": 4.55813938221661,
    }
    assert {key: metrics[key] for key in want} == pytest.approx(want, rel=1e-6)


@pytest.mark.skipif(not shutil.which("bwrap"), reason="needs bubblewrap (apt-get install bubblewrap)")
def test_raw_score_reward_accuracy_and_reasons_of_programs_are_logged_apart(policy, config, rows, monkeypatch):
    tests = {"inputs": ["1", "2", "3", "4"], "outputs": ["2", "4", "6", "8"]}
    code = {"data_source": "coder1_longcot", "reward_model": {"ground_truth": json.dumps(tests)}}
    written = iter(
        [
            "<think></think>\n```python\nprint(2 * int(input()))\n```",
            "<think></think>\n```python\nprint(int(input()) // 3 * 6)\n```",
            "<think></think>\n```python\nraise ValueError\n```",
            "<think>",
        ]
        * 4
    )
    monkeypatch.setattr(Codec, "decode_responses", lambda codec, prompt, ids: [next(written) for _ in ids])
    c = config("reward=authors", "rl.responses_per_prompt=4", "rl.prompts_per_step=4")
    metrics = train_step(state_of(policy, c), [{**row, **code} for row in rows], c)
    assert metrics["reward/raw"] == (1 + 0.25 + 0 + 0) / 4
    assert metrics["reward/accuracy"] == 1 / 4
    assert metrics["reward/mean"] == (1 - 0.5 - 1 - 0.5) / 4
    assert metrics["reward/format_rate"] == 3 / 4
    reasons = {k.removeprefix("reward/reason/"): v for k, v in metrics.items() if k.startswith("reward/reason/")}
    assert {k: v for k, v in reasons.items() if v} == dict.fromkeys(
        ("correct", "wrong", "error", "unclosed_think"), 1 / 4
    )
