"""Real FSDP2 updates by verl's own actor worker over gloo, against klear_lab's own update of the same responses."""

import random
from pathlib import Path

import pytest

pytest.importorskip("verl.protocol", reason="verl has an environment of its own: make test-verl")

import torch
from verl.utils import tensordict_utils

from klear_lab.config import ModelConfig, RLConfig
from klear_lab.engines.verl import files
from klear_lab.engines.verl.policy_loss import CORRECT, TRAINED
from klear_lab.engines.verl.worker import KlearTrainingWorker
from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.model import load_policy
from klear_lab.policy.training_state import apply_gradient, start_state
from klear_lab.rl.clip_methods import CLIP_METHODS, make_clip_method
from klear_lab.rl.loss import ScoredResponse, TokenMeasures, backward, count_tokens
from klear_lab.rl.mismatch import Correction
from klear_lab.rl.probes import clip_metrics
from klear_lab.rl.trainer import learning_rate
from support.verl_cpu import (
    compose_config,
    make_batch,
    make_worker,
    update_in_a_process,
    use_loss,
    weights,
    with_settings,
)

pytestmark = pytest.mark.verl

RATE, WARMUP = 1e-3, 3
SIZES = f"""engine=verl dry_run=true engine.gpus_per_node=1 data.sft_rows=60 data.rl_rows=8 data.benchmark_rows=2
model.hidden_size=16 model.layers=2 sft.length_curriculum=0 rl.mini_batch_prompts=2 rl.micro_batch_sequences=2
rl.responses_per_prompt=2 rl.learning_rate={RATE} rl.warmup_updates={WARMUP} rl.max_grad_norm=0.5""".split()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What a dry run wrote, with a model to start from."""
    from hydra import compose, initialize_config_dir

    from klear_lab.config import register
    from klear_lab.pipeline import run_pipeline
    from klear_lab.validation import parse

    register()
    places = [f"runs_dir={tmp_path_factory.mktemp('runs')}", "scale=smoke", "logger=none", "progress=off"]
    patched = pytest.MonkeyPatch()
    patched.setattr(files, "check_with_verl", lambda place: None)
    with initialize_config_dir(str(Path(__file__).parents[4] / "conf"), version_base="1.3"):
        composed = compose("config", overrides=[*SIZES, *places])
    place = run_pipeline(parse(composed), composed).path / "verl"
    patched.undo()
    files.save_start(start_policy(), place / "start")
    return place


@pytest.fixture(scope="module")
def worker(place):
    """One worker for all tests, since a start takes long."""
    return make_worker(compose_config(place))


def start_policy():
    return load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2), torch.device("cpu"), 0)


def make_responses():
    """Eight responses with old log-probabilities beyond both clip bounds; the fifth isn't trained."""
    chance = random.Random(0)
    responses = [
        ScoredResponse(
            prompt_ids=[chance.randrange(5, 100) for _ in range(chance.randrange(2, 6))],
            response_ids=[chance.randrange(5, 100) for _ in range(chance.randrange(1, 9))],
            truncated=False,
            correct=number % 3 == 0,
            advantage=[1.0, -1.0, 0.5, -0.5][number % 4],
            number=number,
        )
        for number in range(8)
    ]
    with torch.no_grad():
        log_prob_N, _ = response_log_probs(start_policy(), responses, 1.0)
    torch.manual_seed(0)
    old_N = log_prob_N + torch.randn_like(log_prob_N)
    old = [*old_N.split([len(r.response_ids) for r in responses])]
    flags = [0 if r.number == 4 else TRAINED | CORRECT * r.correct for r in responses]
    return responses, old, flags


def our_updates(name, rl, parameters):
    """Two updates by klear_lab's own loop, of four responses each; returns weights, losses, norms and metrics."""
    policy = start_policy()
    responses, old, flags = make_responses()
    state = start_state(policy, learning_rate=RATE, adam_betas=rl.adam_betas, weight_decay=rl.weight_decay)
    found = []
    for mini_batch in (responses[:4], responses[4:]):
        micro_batches = [[r for r in part if flags[r.number]] for part in (mini_batch[:2], mini_batch[2:])]
        trained = [r for part in micro_batches for r in part]
        tokens = TokenMeasures.empty(count_tokens(trained), torch.float32)
        result = backward(
            policy,
            micro_batches,
            make_clip_method(name, **parameters),
            {r.number: old[r.number] for r in trained},
            tokens,
            alpha=rl.alpha,
            temperature=rl.temperature,
            correction=Correction.of(rl),
            token_mean=rl.token_mean,
        )
        norm = apply_gradient(state, "rl", learning_rate(rl, state.updates, 0), rl.max_grad_norm)
        rate = state.optimizer.param_groups[0]["lr"]
        known = {**clip_metrics(tokens), "loss/policy": result.policy_loss, "loss/sft": result.sft_loss}
        found.append(known | {"optim/lr": rate, "grad_norm": norm})
    return policy.model.state_dict(), found


def settings(**changes):
    values = {
        "warmup_updates": WARMUP,
        "learning_rate": RATE,
        "max_grad_norm": 0.5,
        "alpha": 0.1,
        "temperature": 1.0,
        "weight_decay": 0.1,
        "adam_betas": [0.9, 0.999],
    }
    return RLConfig(**{**values, "token_mean": "mini_batch", "mismatch_correction": "none", **changes})


def loss_settings(name, rl, parameters):
    return {
        "loss_mode": f"klear_{name}",
        "parameters": parameters,
        "alpha": rl.alpha,
        "token_mean": rl.token_mean,
        "warmup_updates": rl.warmup_updates,
        "updates_per_step": 2,
    }


def verl_updates(worker, name, rl, parameters):
    """The same by verl's worker, in one call as its trainer makes it; returns weights and metrics."""
    use_loss(worker, **loss_settings(name, rl, parameters))
    batch = with_settings(make_batch(*make_responses()), mini_batch_size=4, temperature=rl.temperature)
    output = worker.update_actor(batch)
    return weights(worker), tensordict_utils.get(output, "metrics")


def check_same(found_weights, found, name, rl, parameters):
    expected_weights, expected = our_updates(name, rl, parameters)
    shared = {*found} & {*expected[0]}
    assert shared >= {
        "loss/policy",
        "loss/sft",
        "grad_norm",
        "optim/lr",
    }
    if CLIP_METHODS[name].bounds is not None:
        assert shared >= {"clip/low_fraction", "clip/gradient_share"}
    for key in shared:
        known = [step[key] for step in expected if step[key] is not None]  # no share of a gradient that is 0
        assert found[key] == pytest.approx(known, rel=1e-3, abs=1e-6), key
    start = start_policy().model.state_dict()
    for key, value in expected_weights.items():
        # An update of AdamW is as large where the gradient is nothing but rounding.
        differs = (found_weights[key] - value).abs() > 1e-6
        assert differs.float().mean() < 0.01 and not torch.equal(value, start[key]), key


def test_verl_trains_with_our_worker(worker):
    assert isinstance(worker.actor, KlearTrainingWorker)


@pytest.mark.parametrize("name", [name for name, own in CLIP_METHODS.items() if own.statistics is None])
def test_an_update_is_that_of_our_own_loop(worker, name):
    parameters = {} if CLIP_METHODS[name].of_responses else {"dual_clip": 3.0}
    check_same(*verl_updates(worker, name, settings(), parameters), name, settings(), parameters)


def test_an_update_with_means_of_micro_batches_is_that_of_our_own_loop(worker):
    rl = settings(token_mean="micro_batch", temperature=0.7)
    check_same(*verl_updates(worker, "gppo", rl, {"eps_low": 0.1}), "gppo", rl, {"eps_low": 0.1})


def test_two_processes_update_as_one(place, tmp_path):
    rl, all_of_them = settings(), make_responses()
    parts = [[[column[i] for i in own] for column in all_of_them] for own in ((0, 1, 4, 5), (2, 3, 6, 7))]
    arguments = (place, tmp_path, parts, loss_settings("gppo", rl, {}))
    torch.multiprocessing.spawn(update_in_a_process, arguments, nprocs=2)
    check_same(*torch.load(tmp_path / "result.pt", weights_only=False), "gppo", rl, {})


def test_warm_up_goes_on_where_the_last_step_ended(worker):
    verl_updates(worker, "gppo", settings(warmup_updates=8), {})
    batch = with_settings(make_batch(*make_responses()), mini_batch_size=4)
    metrics = tensordict_utils.get(worker.update_actor(batch), "metrics")
    assert metrics["optim/lr"] == pytest.approx([RATE * 3 / 8, RATE * 4 / 8])


def test_nothing_moves_where_nothing_trains(worker):
    """After an update, whose momentum would move the weights, and with decay."""
    verl_updates(worker, "gspo", settings(), {})
    before = weights(worker)
    responses, old, flags = make_responses()
    worker.update_actor(with_settings(make_batch(responses, old, [0] * len(flags)), mini_batch_size=4))
    assert all(torch.equal(value, before[key]) for key, value in weights(worker).items())


@pytest.mark.parametrize("on_nonfinite", ["stop", "skip"])
def test_an_update_that_is_not_finite_is_not_applied(worker, on_nonfinite):
    use_loss(worker, loss_mode="klear_none", on_nonfinite=on_nonfinite, updates_per_step=2)
    before = weights(worker)
    responses, old, flags = make_responses()
    batch = with_settings(make_batch(responses, [o - 200 for o in old], flags), mini_batch_size=4)
    if on_nonfinite == "stop":
        with pytest.raises(FloatingPointError, match="the update was not applied"):
            worker.update_actor(batch)
    else:
        worker.update_actor(batch)
    assert all(torch.equal(value, before[key]) for key, value in weights(worker).items())


def test_log_probabilities_are_those_of_our_own(worker):
    worker.actor.reset()
    responses, old, flags = make_responses()
    batch = make_batch(responses, old, flags)
    tensordict_utils.assign_non_tensor(batch, temperature=0.7, calculate_entropy=False, compute_loss=False)
    found = tensordict_utils.get(worker.compute_log_prob(batch), "log_probs")
    with torch.no_grad():
        expected_N, _ = response_log_probs(start_policy(), responses, 0.7)
    parts = [whole[-len(r.response_ids) - 1 : -1] for whole, r in zip(found.unbind(), responses)]
    torch.testing.assert_close(torch.cat(parts), expected_N, rtol=0, atol=1e-5)


def test_what_verl_saves_is_what_is_taken_over(worker, tmp_path):
    from transformers import AutoModelForCausalLM

    verl_updates(worker, "gppo", settings(), {})
    worker.save_checkpoint(str(tmp_path / "actor"), None, 2)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "actor" / "huggingface", dtype=torch.float32)
    policy = start_policy()
    policy.model.load_state_dict(saved.state_dict())
    expected = weights(worker)
    assert all(
        torch.equal(value, expected[key]) for key, value in policy.model.state_dict().items() if key in expected
    )
