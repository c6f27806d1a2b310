"""The RL stage of a run by TRL: the leader's part, which begins steps, ends them, and writes the run folder.

python -m klear_lab.run engine=trl
torchrun --nproc_per_node 2 -m klear_lab.run engine=trl
"""

import logging
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from klear_lab.config import Config
from klear_lab.engines.trl.arguments import recorded
from klear_lab.engines.trl.checkpoints import FOLDER, step_of
from klear_lab.engines.trl.checks import is_sharded
from klear_lab.engines.trl.processes import count, share_weights, tell
from klear_lab.engines.trl.sampling import ServerSampler, SharedSampler
from klear_lab.engines.trl.shares import joined
from klear_lab.engines.trl.trainer import Trainer
from klear_lab.policy.micro_batches import length
from klear_lab.policy.model import Policy
from klear_lab.policy.throughput import forget_peak_memory, memory_metrics, utilisation
from klear_lab.policy.training_state import TrainingState
from klear_lab.rl import stage
from klear_lab.rl.phases import phase_of
from klear_lab.rl.probes import rollout_metrics
from klear_lab.rl.rollout import Rollout, collect
from klear_lab.rl.samples import choose_samples
from klear_lab.rl.trainer import (
    NonFiniteUpdate,
    StepResult,
    Update,
    speed_metrics,
    split_evenly,
    update_metrics,
)
from klear_lab.run_context import RunContext
from klear_lab.sampling.samplers import open_sampler
from klear_lab.sampling.types import Sampler
from klear_lab.storage.interruption import Interrupted

log = logging.getLogger(__name__)


def train(run: RunContext, policy: Policy, saved: Path | None) -> None:
    """Trains the policy in place, with an evaluation before the first and after the last step.

    `saved` is TRL's checkpoint to go on from, None to start anew. Raises `FloatingPointError` for an update that
    isn't finite, and `Interrupted` when asked to stop, after it saved a checkpoint.
    """
    config, output = run.config, run.folder.path / FOLDER
    done = 0 if saved is None else step_of(saved)
    if saved is not None:
        log.info("going on from RL step %d", done)
    with (
        ExitStack() as opened,
        run.tracker.display.stage("RL", config.rl.steps, done, config.eval.every),
    ):
        if config.rl.steps == 0:
            own = opened.enter_context(closing(open_sampler(config, policy)))
            run.tracker.log("rl", 0, stage.evaluation(run, policy, own, 0))
        else:
            tell("rl", output, saved)
            share_weights(policy.model)
            leader = Leader(run, policy, None if saved is None else done)
            trainer = Trainer(config, policy, leader, output)
            leader.sampler = opened.enter_context(closing(choose_sampler(config, policy, trainer)))
            versions = {name: version(name) for name in ("trl", "accelerate")}
            run.folder.update_record(trl={**versions, **recorded(trainer.args)})
            try:
                trainer.run(saved)
            except NonFiniteUpdate as error:
                file = stage.save_skipped(policy, trainer.step, [error], run.folder)
                raise FloatingPointError(f"{error}; its batch is in {file}. Lower rl.learning_rate") from error
        run.tracker.log_most_clipped(config.rl.steps)
    stage.note_seconds(run.folder)


def choose_sampler(config: Config, policy: Policy, trainer: Trainer) -> Sampler:
    """Opens what draws responses: the server if there is one, else each process's own sampler."""
    if config.engine.vllm_server is not None:
        return ServerSampler(trainer.vllm_generation, policy.codec)
    own = open_sampler(config, policy)
    return SharedSampler(own) if count() > 1 else own


@dataclass
class Step:
    """Holds an RL step at hand: its rollout, and its updates so far."""

    number: int
    rollout: Rollout
    started: float
    collected: float
    updates: list[Update] = field(default_factory=list)


class Leader:
    """Begins each RL step with a rollout, and ends it with metrics, evaluation and checkpoint."""

    sampler: Sampler  # opened after the trainer, which knows the server

    def __init__(self, run: RunContext, policy: Policy, done: int | None) -> None:
        """Goes on after `done` RL steps; None starts anew, with an evaluation."""
        self.run, self.policy = run, policy
        self.fresh, self.done = done is None, done or 0
        self.at_hand: Step | None = None
        self.history = [line for line in run.folder.metrics() if line["stage"] == "rl" and line["step"] > 0]

    def add(self, update: Update) -> None:
        """Takes the result of an update."""
        assert self.at_hand is not None
        self.at_hand.updates.append(update)

    def advance(self, trainer: Trainer) -> bool:
        """Ends the step at hand and begins the next that has updates; tells whether there is one."""
        if self.fresh:
            self.run.tracker.log("rl", 0, stage.evaluation(self.run, self.policy, self.sampler, 0))
            self.save(trainer)
            self.fresh = False
        if self.at_hand is not None:
            self.finish(self.at_hand, trainer)
        while self.done < self.run.config.rl.steps:
            step = self.at_hand = self.roll_out(self.done + 1)
            parts = split_evenly(step.rollout.chosen, self.run.config.rl.mini_batch_prompts)
            mini_batches = [[response for group in part for response in group] for part in parts]
            if mini_batches:
                tell("train", step.number, mini_batches)
                trainer.begin(step.number, mini_batches)
                return True
            self.finish(step, trainer)
        tell("end")
        return False

    def roll_out(self, number: int) -> Step:
        """Samples and scores the responses of a step, as engine=local does."""
        run, config = self.run, self.run.config
        forget_peak_memory(self.policy.device)
        started = time.perf_counter()
        phase = phase_of(config.rl, number)
        self.sampler.load(self.policy.weights, number - 1)
        rollout = collect(self.policy.codec, self.sampler, phase, run.data.rl_rows, config, run.verifiers, number)
        return Step(number, rollout, started, time.perf_counter())

    def finish(self, step: Step, trainer: Trainer) -> None:
        """Writes all that an RL step leaves. Raises `Interrupted` after its checkpoint, when asked to stop."""
        run, config, policy = self.run, self.run.config, self.policy
        result = self.result_of(step, trainer)
        self.done, self.at_hand, last = step.number, None, step.number == config.rl.steps
        metrics: dict[str, Any] = dict(result.metrics)
        if last or step.number % config.eval.every == 0:
            metrics |= stage.evaluation(run, policy, self.sampler, step.number)
        probes = stage.write_probes(run, policy, result, step.number) if result.updates else None
        run.tracker.log("rl", step.number, metrics, probes, stage.write_samples(run, policy, result, step.number))
        self.history.append({"step": step.number, **metrics})
        stage.warn(run, self.history)
        run.tracker.display.show("RL", step.number, config.rl.steps, metrics)
        if last or step.number % config.checkpoint.rl_every == 0 or run.stop.requested:
            self.save(trainer)
        if run.stop.requested and not last:
            tell("end")
            raise Interrupted(f"saved after RL step {step.number}; the same command goes on from there")

    def result_of(self, step: Step, trainer: Trainer) -> StepResult:
        """Puts together what the step's updates have measured, in engine=local's words."""
        trained = time.perf_counter()
        tokens = joined([update.result.tokens for update in step.updates])
        assert trainer.optimizer is not None
        state = TrainingState(self.policy, trainer.optimizer)
        rollout, updates = step.rollout, update_metrics(step.updates, tokens, state, trainer.method.has_bounds)
        lengths = [length(r) for group in rollout.chosen for r in group] * self.run.config.rl.epochs
        train_s = trained - step.collected
        mfu = None if is_sharded() else utilisation(self.policy.model, lengths, train_s)  # it counts whole weights
        metrics = {
            **rollout_metrics(rollout.prompts, rollout.sampled, rollout.scores, rollout.groups),
            **updates,
            "optim/lr": trainer.rate if step.updates else None,
            "optim/skipped_updates": 0,
            **speed_metrics(rollout, lengths, step.started, step.collected, trained),
            "perf/mfu": None if mfu is None else mfu / count(),
            **memory_metrics(self.policy.device),
        }
        samples = choose_samples(
            rollout.prompts, rollout.sampled, rollout.scores, self.run.config.samples.responses
        )
        return StepResult(metrics, rollout.prompts, tokens, step.updates, [], samples)

    def save(self, trainer: Trainer) -> None:
        """Saves a checkpoint, in all processes."""
        tell("save", self.done)
        trainer.save(self.done)
