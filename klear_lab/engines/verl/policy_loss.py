"""klear_lab's loss in verl: clip methods registered as loss modes `klear_<name>`.

    loss = - sum of the clip method's objective * mismatch factor / trained tokens
           + alpha * negative log-likelihood of correct responses / their tokens

as in klear_lab/rl/loss.py, with both denominators over the mini-batch on all GPUs, or over each micro-batch with
token_mean="micro_batch". verl averages gradients over GPUs, so each term is multiplied by their number.

What a loss function of verl isn't told (which responses are trained, which are correct, how many of them the whole
mini-batch has) comes in a `Share`, which worker.py leaves in the actor config's `global_batch_info`.

Shapes: B responses of a micro-batch, T tokens of the longest, N trained tokens.
"""

import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import register_policy_loss
from verl.workers.config import PolicyLossConfig

from klear_lab.rl.clip_methods import CLIP_METHODS, ClipOutput, Responses, make_clip_method
from klear_lab.rl.loss import gradient_weight
from klear_lab.rl.probes import k3

SHARE = "klear_lab"  # the key in `global_batch_info`
TRAINED, CORRECT = 1, 2  # bits of a response's flag


@dataclass
class KlearLossConfig(PolicyLossConfig):
    """Adds our settings to verl's own; each has the meaning of the key of that name in klear_lab/config.py.

    `parameters` are those of the clip method, `dual_clip` among them; `updates_per_step` are the optimiser steps
    of one call of verl's update.
    """

    parameters: dict[str, Any] = field(default_factory=dict)
    alpha: float = 0.0
    token_mean: str = "mini_batch"
    warmup_updates: int = 0
    warmup_unit: str = "update"
    updates_per_step: int = 1
    on_nonfinite: str = "stop"


@dataclass(frozen=True)
class Counts:
    """Counts what a mini-batch trains on all GPUs: tokens, those of correct responses among them, responses."""

    tokens: float
    correct_tokens: float
    responses: float


@dataclass
class Share:
    """Holds what the loss of a micro-batch must know of its responses and of the mini-batch around them.

    `flag_BT` has each response's flag at all its tokens. The loss adds its sums for metrics to `sums`.
    """

    counts: Counts
    gpus: int
    flag_BT: Tensor = field(default_factory=lambda: torch.empty(0, 0))
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Adds to the sums."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value


def policy_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
    *,
    name: str,
) -> tuple[Tensor, dict[str, Any]]:
    """Returns the loss of a micro-batch, a scalar, and no metrics of its own: worker.py sums them exactly.

    All tensors are (B, T). Raises `RuntimeError` where worker.py isn't in place.
    """
    settings, share = config.policy_loss, config.global_batch_info.pop(SHARE, None)
    if share is None:
        raise RuntimeError(
            f"loss_mode=klear_{name}: needs actor_rollout_ref.model.external_lib=klear_lab.engines.verl.register"
        )
    flag_BT = share.flag_BT.to(log_prob.device).long()
    trained_BT = response_mask.bool() & (flag_BT & TRAINED > 0)
    correct_BT = trained_BT & (flag_BT & CORRECT > 0)
    log_prob_N, old_log_prob_N, advantage_N = (t[trained_BT] for t in (log_prob, old_log_prob, advantages))
    factor_N = torch.ones_like(log_prob_N) if rollout_is_weights is None else rollout_is_weights[trained_BT]
    method = make_clip_method(name, **settings.parameters)
    lengths = [length for length in trained_BT.sum(dim=1).tolist() if length]
    known: dict[str, Any] = {"responses": Responses.of(lengths)}
    output = method(log_prob_N, old_log_prob_N, advantage_N, **known)
    weight, tokens, correct_tokens = denominators(settings.token_mean, share.counts, trained_BT, correct_BT)
    policy_term = -(output.objective * factor_N).sum() * weight / tokens
    sft_term = -log_prob[correct_BT].sum() * weight / correct_tokens
    weight_N = gradient_weight(method, log_prob_N, old_log_prob_N, advantage_N, factor=factor_N, **known)
    share.add(policy_loss=policy_term.item(), sft_loss=sft_term.item())
    share.add(**token_sums(output, (log_prob_N - old_log_prob_N).detach(), advantage_N, weight_N))
    loss = policy_term + settings.alpha * sft_term if settings.alpha > 0 else policy_term
    return loss * share.gpus, {}


def denominators(
    token_mean: str, counts: Counts, trained_BT: Tensor, correct_BT: Tensor
) -> tuple[float, float, float]:
    """Returns the weight of a micro-batch and what its two sums are divided by."""
    if token_mean == "mini_batch":
        return 1.0, max(1.0, counts.tokens), max(1.0, counts.correct_tokens)
    responses = int(trained_BT.any(dim=1).sum())
    weight = responses / max(1.0, counts.responses)
    return weight, max(1, int(trained_BT.sum())), max(1, int(correct_BT.sum()))


def token_sums(output: ClipOutput, log_ratio_N: Tensor, advantage_N: Tensor, weight_N: Tensor) -> dict[str, float]:
    """Returns the sums over tokens that the metrics of klear_lab/rl/probes.py are shares or means of."""
    ratio_N, size_N = log_ratio_N.exp(), weight_N.abs()
    clipped_N = output.low | output.high
    masks = {
        "low": output.low,
        "high": output.high,
        "dual": output.dual,
        "below_positive": output.below & (advantage_N > 0),
        "above_negative": output.above & (advantage_N < 0),
    }
    return {
        **{name: float(mask.sum()) for name, mask in masks.items()},
        "ratio": float(ratio_N.double().sum()),
        "kl_old": float(k3(log_ratio_N).sum()),
        "gradient": float(size_N.double().sum()),
        "gradient_clipped": float(size_N[clipped_N].double().sum()),
    }


def register_clip_methods() -> None:
    """Makes known to verl, as loss modes, all clip methods but those that look at the whole mini-batch first."""
    for name, definition in CLIP_METHODS.items():
        if definition.statistics is not None:
            continue
        function = partial(policy_loss, name=name)
        function.__doc__ = inspect.getdoc(definition.objective)
        register_policy_loss(f"klear_{name}")(function)
