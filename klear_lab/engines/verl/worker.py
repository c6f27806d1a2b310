"""verl's training worker with what klear_lab's loss needs: counts over the whole mini-batch, warm-up by updates.

verl tells a loss function nothing beyond its micro-batch but a count of all tokens, and warms its learning rate up
once a step. This worker counts trained and correct tokens over all GPUs before each update, sets the learning rate
of that update, and adds exact metrics of the mini-batch to verl's. Their names are ours (klear_lab/metrics.py).
"""

import math
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from klear_lab.engines.verl.policy_loss import CORRECT, SHARE, TRAINED, Counts, Share
from klear_lab.rl.clip_methods import CLIP_METHODS
from klear_lab.rl.probes import without_regions


class KlearTrainingWorker(TrainingWorker):
    """Trains as verl does, with klear_lab's loss."""

    def set_loss_fn(self, loss_fn: Any) -> None:
        """Takes verl's loss function, whose config our loss is called with."""
        self.verl_loss, self.loss_fn = loss_fn, self.loss_of_micro_batch
        self.actor_config = loss_fn.keywords["config"]

    def loss_of_micro_batch(self, model_output: Any, data: TensorDict, dp_group: Any = None) -> Any:
        """Hands verl's loss function the micro-batch's share of the mini-batch, beside its own arguments."""
        self.share.flag_BT = torch.nested.to_padded_tensor(data["returns"], 0.0)
        self.actor_config.global_batch_info[SHARE] = self.share
        return self.verl_loss(model_output=model_output, data=data, dp_group=dp_group)

    def train_mini_batch(self, data: TensorDict) -> TensorDict:
        """Makes the updates of one step."""
        self.updates = 0
        return super().train_mini_batch(data)

    def train_batch(self, data: TensorDict) -> TensorDict:
        """Makes one update. Raises `FloatingPointError` for a gradient that isn't finite and can't be skipped."""
        settings = self.actor_config.policy_loss
        flag_N, starts = data["returns"].values().long(), data["returns"].offsets()[:-1]
        lengths = data["returns"].offsets().diff()
        mask_N = data["response_mask"].values().bool()
        own = self.total([*counts(flag_N, mask_N), *response_counts(flag_N[starts[lengths > 0]], mask_N, lengths)])
        tokens, correct_tokens, trained, correct, responses = own
        gpus = self.engine.get_data_parallel_size()
        self.share = Share(Counts(tokens, correct_tokens, trained), gpus)
        rate = self.set_learning_rate(settings, trains=tokens > 0)
        output = super().train_batch(data)
        self.updates += 1
        metrics = {name: value for name, value in self.metrics(settings).items() if value is not None}
        metrics |= {"optim/lr": rate, "reward/accuracy": correct / max(1.0, responses)}
        if output is not None:
            found = tensordict_utils.get(output, "metrics")
            found.update(metrics)
            norm = found.get("grad_norm", 0.0)
            if settings.on_nonfinite == "stop" and not math.isfinite(norm):
                raise FloatingPointError(
                    f"the gradient norm is {norm}; the update was not applied. Lower rl.learning_rate; "
                    "rl.on_nonfinite=skip leaves such updates out"
                )
        return output

    def set_learning_rate(self, settings: Any, trains: bool = True) -> float:
        """Sets and returns the learning rate of the next update, after a linear warm-up in updates or rollouts.

        It is 0 for a mini-batch that trains on no token: weight decay and momentum would move the weights.
        """
        scheduler = self.engine.lr_scheduler
        if settings.warmup_unit == "rollout":
            done = scheduler.last_epoch
        else:
            done = scheduler.last_epoch * settings.updates_per_step + self.updates + 1
        share = min(1.0, done / max(1, settings.warmup_updates)) if trains else 0.0
        for group, rate in zip(self.engine.optimizer.param_groups, scheduler.base_lrs, strict=True):
            group["lr"] = rate * share
        return float(scheduler.base_lrs[0] * share)

    def metrics(self, settings: Any) -> dict[str, float | None]:
        """Returns the metrics of the last mini-batch on all GPUs; None where no token counts for one."""
        sums, tokens = self.share.sums, self.share.counts.tokens
        values = dict(zip(sums, self.total([*sums.values()]), strict=True))
        if not tokens:
            return {}
        gradient = values.pop("gradient")
        shares = ("low", "high", "dual", "below_positive", "above_negative")
        found = {
            "loss/policy": values["policy_loss"],
            "loss/sft": values["sft_loss"] if self.share.counts.correct_tokens else None,
            **{f"clip/{name}_fraction": values[name] / tokens for name in shares},
            "clip/gradient_share": values["gradient_clipped"] / gradient if gradient else None,
            "ratio/mean": values["ratio"] / tokens,
            "policy/kl_old": values["kl_old"] / tokens,
        }
        has_bounds = CLIP_METHODS[settings.loss_mode.removeprefix("klear_")].bounds is not None
        return found if has_bounds else without_regions(found)

    def total(self, values: list[float]) -> list[float]:
        """Returns the sums of some numbers over all GPUs."""
        summed = torch.tensor(values, dtype=torch.float64, device=self.device_name)
        torch.distributed.all_reduce(summed, group=self.engine.get_data_parallel_group())
        return [float(value) for value in summed]


def counts(flag_N: Tensor, mask_N: Tensor) -> list[int]:
    """Returns the number of trained tokens and of correct ones of these, of the N tokens of some responses."""
    trained_N = mask_N & (flag_N & TRAINED > 0)
    return [int(trained_N.sum()), int((trained_N & (flag_N & CORRECT > 0)).sum())]


def response_counts(flag_B: Tensor, mask_N: Tensor, lengths: Tensor) -> list[int]:
    """Returns how many of B responses are trained, how many correct, and how many there are; padding is none."""
    real_B = torch.stack([part.any() for part in mask_N.split(lengths[lengths > 0].tolist())])
    flag_B = flag_B[real_B]
    return [int((flag_B & TRAINED > 0).sum()), int((flag_B & CORRECT > 0).sum()), len(flag_B)]


def use_worker() -> None:
    """Makes verl's actors train with this worker."""
    ActorRolloutRefWorker.actor_worker_cls = KlearTrainingWorker
