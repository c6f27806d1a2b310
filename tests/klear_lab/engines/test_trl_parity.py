"""engine=trl against engine=local on equal rollouts: the gradient of each clip method, and the weights after a step.

Both get the same token ids, advantages and old log-probabilities, which lie far enough off to be clipped.
"""

import dataclasses
import os
import random
import socket
from types import SimpleNamespace

import pytest
import torch

from klear_lab.config import ModelConfig
from klear_lab.policy.model import load_policy
from klear_lab.policy.training_state import start_state
from klear_lab.rl import trainer as local
from klear_lab.rl.clip_methods import CLIP_METHODS, make_clip_method
from klear_lab.rl.loss import ScoredResponse, TokenMeasures, backward, count_tokens
from klear_lab.rl.mismatch import Correction
from klear_lab.rl.rollout import choose_groups
from support.server import SERVER

pytest.importorskip("trl")

P, G = 4, 4
METHODS = sorted(name for name, method in CLIP_METHODS.items() if method.statistics is None)
SIZES = [f"rl.prompts_per_step={P}", f"rl.responses_per_prompt={G}", "rl.steps=1", "rl.alpha=0.3"]


class Given:
    """Begins one RL step with the mini-batches that it was given."""

    def __init__(self, mini_batches, old_log_probs):
        self.mini_batches, self.old_log_probs, self.updates = mini_batches, old_log_probs, []

    def advance(self, trainer):
        begins, self.begun = not hasattr(self, "begun"), True
        if begins:
            trainer.begin(1, self.mini_batches, self.old_log_probs)
        return begins

    def add(self, update):
        self.updates.append(update)


def make_policy():
    policy = load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2), torch.device("cpu"), seed=0)
    policy.model.double()
    return policy


def make_groups(vocabulary=100, seed=0):
    """Responses of different lengths to prompts of different lengths, some of them right."""
    draw = random.Random(seed)

    def ids(least, most):
        return [draw.randrange(5, vocabulary) for _ in range(draw.randint(least, most))]

    def response(prompt_ids, number):
        response_ids = ids(1, 9)
        return ScoredResponse(
            prompt_ids=prompt_ids,
            response_ids=response_ids,
            truncated=draw.random() < 0.3,
            correct=draw.random() < 0.4,
            advantage=draw.gauss(0, 1),
            number=number,
            sampler_log_prob_T=torch.tensor([draw.gauss(-4.6, 0.8) for _ in response_ids]),
        )

    prompts = [ids(2, 6) for _ in range(P)]
    return [[response(prompt_ids, p * G + g) for g in range(G)] for p, prompt_ids in enumerate(prompts)]


def old_log_probs_of(policy, groups, temperature=1.0):
    """The policy's own, moved at random so that ratios lie on both sides of the bounds."""
    flat = [[[r for group in groups for r in group]]]
    old = local.record_old_log_probs(policy, flat, SimpleNamespace(temperature=temperature))
    generator = torch.Generator().manual_seed(1)
    return {n: t + torch.randn(t.shape, generator=generator, dtype=t.dtype) * 0.6 for n, t in old.items()}


def local_gradient(config, groups, old_log_probs):
    policy, responses = make_policy(), [r for group in groups for r in group]
    tokens = TokenMeasures.empty(count_tokens(responses), torch.float64)
    method = make_clip_method(**config.clip_method)
    given = dict(alpha=config.rl.alpha, temperature=config.rl.temperature, correction=Correction.of(config.rl))
    result = backward(policy, local.cut(policy, groups, config.rl), method, dict(old_log_probs), tokens, **given)
    return {name: p.grad for name, p in policy.model.named_parameters()}, result


def trl_gradient(config, groups, old_log_probs, output):
    from transformers import TrainerCallback

    from klear_lab.engines.trl.trainer import Trainer

    policy, found = make_policy(), {}

    class Gradient(TrainerCallback):
        def on_pre_optimizer_step(self, *_, **__):
            found.update({name: p.grad.clone() for name, p in policy.model.named_parameters()})

    lead = Given([[r for group in groups for r in group]], old_log_probs)
    made = Trainer(config, policy, lead, output)
    made.add_callback(Gradient())
    made.run(None)
    return found, lead.updates


def largest_difference(got, want):
    """Relative to the largest entry of each weight's gradient."""
    assert got.keys() == want.keys() != {}
    return max((got[n] - want[n]).abs().max().item() / want[n].abs().max().item() for n in want)


def settings(method, *more):
    return [*SIZES, f"clip_method={method}", f"rl.mini_batch_prompts={P}", "rl.max_grad_norm=inf", *more]


@pytest.mark.parametrize(
    "method",
    [m if m in ("gppo", "cispo", "gspo", "topr") else pytest.param(m, marks=pytest.mark.slow) for m in METHODS],
)
def test_one_steps_gradient_is_the_local_engines(method, config, tmp_path):
    c = config(*settings(method))
    groups = make_groups()
    old = old_log_probs_of(make_policy(), groups)
    want, expected = local_gradient(c, groups, old)
    got, (update,) = trl_gradient(c, groups, old, tmp_path)
    assert largest_difference(got, want) < 1e-5
    assert update.result.policy_loss == pytest.approx(expected.policy_loss, rel=1e-5)
    assert update.result.sft_loss == pytest.approx(expected.sft_loss, rel=1e-5)
    if method not in ("none", "grpo", "clip_higher"):
        return
    other, _ = trl_gradient(config(*settings("gppo")), groups, old, tmp_path)
    assert largest_difference(other, want) > 0.01  # the comparison can fail


@pytest.mark.parametrize(
    "changes", [["rl.micro_batch_sequences=1"], ["rl.micro_batch_sequences=16"], ["rl.temperature=0.7"]]
)
def test_neither_the_cut_nor_the_temperature_parts_the_engines(changes, config, tmp_path):
    c = config(*settings("gppo", *changes))
    groups = make_groups()
    old = old_log_probs_of(make_policy(), groups)
    want, _ = local_gradient(c, groups, old)
    got, _ = trl_gradient(c, groups, old, tmp_path)
    assert largest_difference(got, want) < 1e-5


def share_of_a_launch(rank, port, c, groups, old, output, queue):
    """What one of two processes does; the leader sends its gradients."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for one, (config, mini_batch_old) in enumerate(c):
        got, updates = trl_gradient(config, groups, mini_batch_old, output)
        if rank == 0:
            losses = [(u.result.policy_loss, u.result.sft_loss) for u in updates]
            queue.put((one, {n: g.numpy() for n, g in got.items()}, losses))


@pytest.mark.slow
@pytest.mark.parametrize("methods", [METHODS[third::3] for third in range(3)], ids=["first", "second", "third"])
def test_two_processes_have_the_local_engines_gradient_for_every_clip_method(config, tmp_path, methods):
    """Groups of 4, but one response is gone: the shares differ, and so do their tokens."""
    groups = make_groups()
    groups[0].pop()
    old = old_log_probs_of(make_policy(), groups)
    configs = [config(*settings(method)) for method in methods]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    queue = SERVER.Queue()
    arguments = (port, [(c, old) for c in configs], groups, old, tmp_path, queue)
    processes = [SERVER.Process(target=share_of_a_launch, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=250) for _ in methods]
    for process in processes:
        process.join()
    for one, got, losses in found:
        want, expected = local_gradient(configs[one], groups, old)
        assert largest_difference({n: torch.tensor(g) for n, g in got.items()}, want) < 1e-5, methods[one]
        assert losses[0] == pytest.approx((expected.policy_loss, expected.sft_loss), rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([], marks=pytest.mark.slow),
        ["rl.epochs=2", "rl.mask_overlong=true"],
        ["rl.alpha=0", "rl.warmup_updates=0", "optimizer=adamw_8bit"],
        ["rl.mismatch_correction=icepop", "rl.mini_batch_prompts=1"],
    ],
)
def test_a_whole_rl_step_ends_with_the_local_engines_weights(changes, config, tmp_path):
    """One group of four is dropped, so that TRL's number of updates isn't what its arguments say."""
    from klear_lab.engines.trl.trainer import Trainer

    sizes = ["rl.mini_batch_prompts=2", "rl.learning_rate=1e-2", "rl.max_grad_norm=0.1"]
    c = config(*SIZES, *sizes, *changes)
    groups = make_groups()
    groups[1] = [dataclasses.replace(r, advantage=0.0) for r in groups[1]]
    c.rl.drop_zero_advantage = True
    chosen = choose_groups(groups, c.rl)
    assert len(chosen) == P - 1
    reference, policy = make_policy(), make_policy()
    state = start_state(
        reference,
        learning_rate=c.rl.learning_rate,
        adam_betas=c.rl.adam_betas,
        weight_decay=c.rl.weight_decay,
        optimizer=c.optimizer,
    )
    updates, _, _ = local.update(state, chosen, make_clip_method(**c.clip_method), c.rl)
    parts = local.split_evenly(chosen, c.rl.mini_batch_prompts)
    lead = Given([[r for group in part for r in group] for part in parts], {})
    Trainer(c, policy, lead, tmp_path).run(None)
    assert [u.norm for u in lead.updates] == pytest.approx([u.norm for u in updates], rel=1e-5)
    want, before = reference.model.state_dict(), make_policy().model.state_dict()
    for name, weight in policy.model.state_dict().items():
        moved = (want[name] - before[name]).abs().max()
        assert (weight - want[name]).abs().max() <= 1e-3 * moved, (
            name
        )  # where a gradient is near 0, AdamW takes its rounding for its sign
