"""TRL's GRPOTrainer with klear_lab's loss: its gradient on equal rollouts is that of klear_lab/rl/loss.py.

TRL keeps the model (wrapped by accelerate), its log-probabilities, gradient accumulation, the optimizer's steps,
clipping of the gradient's norm and checkpoints. Ours are the loss and what it is a mean of, rows, responses,
rewards, advantages, old log-probabilities and the schedule of the learning rate. Departures from TRL's own loop:
1. TRL asks for rollouts where it needs the next batch, and has as many updates for each as its arguments say. Here
   `lead` rolls out once the updates of the last RL step are done, and a step whose groups were dropped has fewer
   updates or none, as with engine=local. So TRL's own sampler of rows and `_generate_and_score_completions` rest.
2. Sequences are padded on the right, where causal attention never looks, instead of around the prompt's end.

Shapes: B sequences, T positions, K of them kept, N response tokens of a micro-batch in order.
"""

import copy
import math
import shutil
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback
from transformers import Trainer as TransformersTrainer
from trl import GRPOTrainer

from klear_lab.config import Config
from klear_lab.engines.trl.arguments import make_arguments
from klear_lab.engines.trl.checkpoints import complete, step_folder
from klear_lab.engines.trl.checks import is_sharded
from klear_lab.engines.trl.processes import gather, rank
from klear_lab.engines.trl.shares import MicroBatch, deal, joined
from klear_lab.policy.log_probs import right_pad
from klear_lab.policy.memory import explained_memory, training_advice
from klear_lab.policy.micro_batches import length
from klear_lab.policy.model import Policy, load_policy
from klear_lab.policy.optimizers import make_optimizer
from klear_lab.rl.clip_methods import make_clip_method
from klear_lab.rl.loss import MiniBatchResult, OldLogProbs, ScoredResponse, TokenMeasures, measure, remember
from klear_lab.rl.mismatch import Correction
from klear_lab.rl.trainer import NonFiniteUpdate, Update


class NothingLeft(Exception):
    """Says that all RL steps are done before TRL's loop took its first update."""


class Lead(Protocol):
    """Decides what the trainer does between updates."""

    def advance(self, trainer: "Trainer") -> bool:
        """Begins the next RL step that has updates, with `trainer.begin`; tells whether there is one."""

    def add(self, update: Update) -> None:
        """Takes the result of an update. Only the leader's process has all of it."""


class Trainer(GRPOTrainer):
    """GRPOTrainer whose micro-batches, loss, optimizer, learning rate and checkpoints are klear_lab's."""

    loss_is_scaled_for_ga = True  # by the tokens of the whole mini-batch

    def __init__(self, config: Config, policy: Policy, lead: Lead, output: Path) -> None:
        """Trains `policy` in place, in the steps that `lead` begins; writes checkpoints into `output`."""
        self.config, self.policy, self.lead, self.output = config, policy, lead, output
        self.method = make_clip_method(**config.clip_method)
        self.correction = Correction.of(config.rl)
        self.waiting: deque[MicroBatch] = deque()  # of the RL step at hand
        self.old_log_probs: OldLogProbs = {}
        self.taken: list[MicroBatch] = []  # of the update at hand, in this process
        self.measured: list[
            tuple[float, float, TokenMeasures]
        ] = []  # in each of them: policy loss, SFT loss, tokens
        self.norm, self.step = math.nan, 0
        super().__init__(
            model=policy.model,
            reward_funcs=[no_reward],
            args=make_arguments(config, policy, output),
            train_dataset=Dataset.from_dict({"prompt": ["-"]}),  # TRL wants one; `lead` chooses the rows
            processing_class=copy.deepcopy(policy.codec.tokenizer),  # TRL gives it a padding token
        )
        self.remove_callback(PrinterCallback)
        self.add_callback(BetweenUpdates(self))

    def run(self, saved: Path | None) -> None:
        """Trains until `lead` has no further step. `saved` is the checkpoint to go on from."""
        with suppress(NothingLeft):
            self.train(resume_from_checkpoint=None if saved is None else str(saved))
        self.bring_home()

    def begin(
        self, step: int, mini_batches: Sequence[Sequence[ScoredResponse]], old_log_probs: OldLogProbs | None = None
    ) -> None:
        """Begins the updates of an RL step, and records old log-probabilities that aren't known.

        The first mini-batch needs no pass for them, since its update starts from the same weights.
        """
        self.step = step
        self.old_log_probs = dict(old_log_probs or {})
        own = [deal(part, self.args.gradient_accumulation_steps) for part in mini_batches]
        with torch.no_grad():
            for micro_batch in (one for part in own[1:] for one in part):
                log_prob_N, _ = self.response_log_probs(self.model, micro_batch.responses)
                remember(self.old_log_probs, micro_batch.responses, log_prob_N)
        self.waiting.extend(one for _ in range(self.config.rl.epochs) for part in own for one in part)

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """Takes a micro-batch forward and back. Raises `OutOfMemory`, which says what to lower."""
        size = self.args.per_device_train_batch_size
        fewer = f"set rl.micro_batch_sequences={size // 2}, which changes no result but the last bits"
        longest = max((length(r) for one in self.waiting for r in one.responses), default=1)
        with explained_memory("RL update", fewer if size > 1 else training_advice(self.config, "rl", longest, 1)):
            return super().training_step(*arguments, **named)

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        self.taken.append(self.waiting.popleft())
        return self.taken[-1]

    def _compute_loss(self, model: Any, inputs: MicroBatch) -> Tensor:
        """Returns the micro-batch's share of the mini-batch's loss; see klear_lab/rl/loss.py."""
        responses, alpha = inputs.responses, self.config.rl.alpha
        log_prob_N, entropy_N = self.response_log_probs(model, responses)
        if inputs.filler:
            return 0.0 * log_prob_N.sum()
        tokens = TokenMeasures.empty(len(log_prob_N), torch.promote_types(torch.float32, self.policy.model.dtype))
        objective_N, correct_N = measure(
            responses, log_prob_N, entropy_N, self.method, self.old_log_probs, self.correction, tokens
        )
        policy_term = -objective_N.sum() / inputs.tokens
        sft_term = -log_prob_N[correct_N].sum() / max(1, inputs.correct_tokens)
        loss = policy_term + alpha * sft_term if alpha > 0 else policy_term
        self.measured.append((policy_term.item(), sft_term.item(), tokens))
        return loss * self.accelerator.num_processes  # accelerate takes the mean over processes

    def response_log_probs(self, model: Any, responses: Sequence[ScoredResponse]) -> tuple[Tensor, Tensor]:
        """Returns log_prob_N of the response tokens, with gradient, and entropy_N, from TRL's own pass."""
        input_ids_BT, predicts_BT = right_pad(responses, self.policy.pad_token_id)
        input_ids_BT, predicts_BT = (tensor.to(self.accelerator.device) for tensor in (input_ids_BT, predicts_BT))
        longest = input_ids_BT.shape[1]
        length_B = torch.tensor([length(r) for r in responses], device=input_ids_BT.device)
        mask_BT = (torch.arange(longest, device=input_ids_BT.device) < length_B[:, None]).long()
        kept = longest - min(len(r.prompt_ids) for r in responses)
        with self.policy.autocast():
            log_prob_BK, entropy_BK, _ = self._get_per_token_logps_and_entropies(
                model, input_ids_BT, mask_BT, kept, compute_entropy=True
            )
        own_BK = predicts_BT[:, longest - 1 - kept : longest - 1]
        return log_prob_BK[own_BK], entropy_BK[own_BK].detach()

    def end_update(self) -> None:
        """Hands the update's result to `lead`, from all processes."""
        right = self.taken[0].correct_tokens > 0
        shares = gather(self.measured)
        self.taken, self.measured = [], []
        if shares:
            parts = [part for share in shares for part in share]
            tokens = joined([tokens for *_, tokens in parts])
            sft_loss = sum(sft for _, sft, _ in parts) if right else None
            self.lead.add(Update(MiniBatchResult(sum(p for p, *_ in parts), sft_loss, tokens), self.norm))

    def nonfinite(self, what: str) -> NonFiniteUpdate:
        """Describes an update of which something isn't finite, with the responses that this process had in it."""
        responses = [response for part in self.taken for response in part.responses if not part.filler]
        old = {r.number: self.old_log_probs[r.number] for r in responses}
        return NonFiniteUpdate(f"RL step {self.step}: {what}; the update was not applied", responses, old)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Makes klear_lab's optimizer, which decays all weights, as TRL's doesn't."""
        whole: Any = model or self.model
        rl, trained = self.config.rl, [p for p in whole.parameters() if p.requires_grad]
        if self.optimizer is None:
            betas = (rl.adam_betas[0], rl.adam_betas[1])
            self.optimizer = make_optimizer(
                self.config.optimizer, trained, lr=rl.learning_rate, betas=betas, weight_decay=rl.weight_decay
            )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Makes the linear warm-up over updates, after which the learning rate stays."""
        if self.lr_scheduler is None:
            steps: Any = optimizer or self.optimizer
            self.lr_scheduler = LambdaLR(steps, lambda done: self.warmed_up(done + 1))
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def warmed_up(self, update: int) -> float:
        """Returns the share of the learning rate that an update has; updates count from 1."""
        return min(1.0, update / max(1, self.config.rl.warmup_updates))

    @property
    def rate(self) -> float:
        """Returns the last update's learning rate; before the first, that after the warm-up."""
        done = self.state.global_step
        return self.config.rl.learning_rate * (self.warmed_up(done) if done else 1.0)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Returns one item for each micro-batch that there may be; `_prepare_inputs` puts the real one there."""
        places: Any = range(self.args.max_steps * self.args.gradient_accumulation_steps)
        return DataLoader(places, collate_fn=list)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float:
        """Notes the update's norm. Raises `NonFiniteUpdate`, before the update is applied."""
        self.norm = float(super()._get_grad_norm(model, grad_norm=grad_norm))
        loss = sum(policy + self.config.rl.alpha * sft for policy, sft, _ in self.measured)
        for name, value in (("gradient norm", self.norm), ("loss", loss)):  # the norm is that of all processes
            if not math.isfinite(value):
                raise self.nonfinite(f"the {name} is {value}")
        return self.norm

    def save(self, step: int) -> None:
        """Writes TRL's checkpoint after an RL step; all processes take part."""
        folder = step_folder(self.output, step)
        self.step = step
        if rank() == 0:
            shutil.rmtree(folder, ignore_errors=True)  # what a kill has left of it
        self.accelerator.wait_for_everyone()
        TransformersTrainer._save_checkpoint(self, self.model_wrapped, trial=None)  # TRL's writes a card too
        self.accelerator.wait_for_everyone()
        if rank() == 0:
            complete(folder, step, self.config.checkpoint.keep)

    def bring_home(self) -> None:
        """Gives the leader's policy whole weights again, where processes shared them; all take part."""
        if is_sharded():
            weights = self.accelerator.get_state_dict(self.model_wrapped)
            if rank() == 0:
                whole = load_policy(self.config.model, torch.device("cpu"), self.config.sft.seed)
                whole.model.load_state_dict(weights)
                self.policy.model = whole.model

    def _get_output_dir(self, trial: Any) -> str:
        return str(step_folder(self.output, self.step))

    def log(self, logs: Any, start_time: float | None = None) -> None:
        """Logs nothing: `lead` does."""

    def floating_point_ops(self, inputs: Any) -> int:
        """Counts nothing: `lead` reports the model's FLOPs."""
        return 0

    def _send_telemetry(self) -> None:
        """Tells nobody that a run was started."""


class BetweenUpdates(TrainerCallback):
    """Gives `lead` the word before the first update and after each RL step's last."""

    def __init__(self, trainer: Trainer) -> None:
        """Serves one trainer."""
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begins the first step; leaves TRL's loop by `NothingLeft` where there is none."""
        if not self.trainer.lead.advance(self.trainer):
            raise NothingLeft

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Ends an update, and with the last of its RL step begins the next."""
        self.trainer.end_update()
        if not self.trainer.waiting:
            control.should_training_stop = not self.trainer.lead.advance(self.trainer)
        return control


def no_reward(**_: Any) -> list[float | None]:
    """Stands in for a reward function, without which TRL doesn't start; `lead` scores responses."""
    raise AssertionError("TRL asked for rewards that klear_lab gives")
