"""The RL stage of a run: takes steps and evaluates until all phases are done, and records each before the next.

It goes on from the run's last checkpoint, and leaves metrics, probes and token records in the run folder.
"""

import logging
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from klear_lab.evaluate import evaluate
from klear_lab.policy.model import Policy
from klear_lab.policy.training_state import TrainingState, load_checkpoint, save_checkpoint, start_state
from klear_lab.rl import trainer
from klear_lab.rl.first_evaluation import first_evaluation
from klear_lab.rl.phases import phase_of, total_steps
from klear_lab.rl.probes import histograms, most_clipped
from klear_lab.rl.runaway import find_runaways
from klear_lab.rl.samples import is_due, sample_lines
from klear_lab.rl.token_records import last_update_frame, responses_frame
from klear_lab.run_context import RunContext
from klear_lab.sampling.samplers import open_sampler
from klear_lab.sampling.types import Sampler
from klear_lab.storage.interruption import Interrupted
from klear_lab.storage.run_folder import RunFolder

log = logging.getLogger(__name__)


def train_rl(run: RunContext, policy: Policy, saved: Path | None) -> None:
    """Trains the policy in place, with an evaluation before the first and after the last step.

    `saved` is the checkpoint to go on from, None to start anew. Raises `FloatingPointError` for an update that
    isn't finite, unless `rl.on_nonfinite` is skip; earlier checkpoints stay. Raises `Interrupted` when asked to
    stop, after it saved a checkpoint.
    """
    config, folder, tracker, stop = run.config, run.folder, run.tracker, run.stop
    rl, steps = config.rl, total_steps(config.rl)
    state = start_state(
        policy,
        learning_rate=rl.learning_rate,
        adam_betas=rl.adam_betas,
        weight_decay=rl.weight_decay,
        optimizer=config.optimizer,
    )
    checkpoint = folder.path / "checkpoint.pt"
    if saved is not None:
        load_checkpoint(state, saved)
        log.info("going on from RL step %d", state.step)
    history = [line for line in folder.metrics() if line["stage"] == "rl" and line["step"] > 0]
    # The sampler first: the time left is told from the stage's start, and some samplers take minutes to open.
    with (
        closing(open_sampler(config, policy)) as sampler,
        tracker.display.stage("RL", steps, state.step, config.eval.every),
    ):
        if saved is None:
            tracker.log("rl", 0, evaluation(run, policy, sampler, 0))
            save_checkpoint(state, checkpoint, config.checkpoint.keep)
            if stop.requested and steps > 0:
                raise Interrupted("saved before the first RL step; the same command goes on from there")
        while state.step < steps:
            result = take_step(run, state, sampler)
            metrics = result.metrics
            if state.step % config.eval.every == 0 or state.step == steps:
                metrics = {**metrics, **evaluation(run, policy, sampler, state.step)}
            probes = write_probes(run, policy, result, state.step) if result.updates else None
            tracker.log("rl", state.step, metrics, probes, write_samples(run, policy, result, state.step))
            history.append({"step": state.step, **metrics})
            warn(run, history)
            tracker.display.show("RL", state.step, steps, metrics)
            if state.step % config.checkpoint.rl_every == 0 or state.step == steps or stop.requested:
                save_checkpoint(state, checkpoint, config.checkpoint.keep)
            if stop.requested and state.step < steps:
                raise Interrupted(f"saved after RL step {state.step}; the same command goes on from there")
        tracker.log_most_clipped(steps)
    note_seconds(folder)


def take_step(run: RunContext, state: TrainingState, sampler: Sampler) -> trainer.StepResult:
    """Takes one RL step and writes the batches of updates that weren't applied to files.

    Raises `FloatingPointError` with the file's name for the first of them, unless `rl.on_nonfinite` is skip.
    """
    try:
        result = trainer.train_step(state, run.data.rl_rows, run.config, run.verifiers, sampler)
    except trainer.NonFiniteUpdate as error:
        file = save_skipped(state.policy, state.step + 1, [error], run.folder)
        raise FloatingPointError(
            f"{error}; its batch is in {file}. rl.on_nonfinite=skip leaves such updates out"
        ) from error
    if result.skipped:
        save_skipped(state.policy, state.step, result.skipped, run.folder)
    return result


def evaluation(run: RunContext, policy: Policy, sampler: Sampler, step: int) -> dict[str, Any]:
    """Evaluates the policy, adds what it found to the run folder, and returns the scores and `time/eval_s`.

    What another run had found before its first step took no time that is worth telling.
    """
    started = time.perf_counter()
    last, from_cache = step == total_steps(run.config.rl), False
    if step == 0 and not last and run.config.engine.vllm_server is None:  # a server draws without our seeds
        found, from_cache = first_evaluation(run, policy, sampler)
    else:
        found = evaluate(run, policy, sampler, step, run.config.samples.answers if last else 0)
    run.folder.add_evaluations(found.samples)
    if found.answers:
        run.folder.write_lines("answers.jsonl", found.answers)
    return found.scores if from_cache else {**found.scores, "time/eval_s": time.perf_counter() - started}


def write_probes(run: RunContext, policy: Policy, result: trainer.StepResult, step: int) -> dict[str, Any]:
    """Adds the step's line to probes.jsonl and returns it; writes the step's token records where they are due."""
    clipped = most_clipped(result.tokens, policy.codec.decode_token)
    line = {"step": step, "histograms": histograms(result.tokens), "most_clipped": clipped}
    run.folder.append_line("probes.jsonl", line)
    config, records = run.config, run.config.token_records
    if records.every is not None and (step % records.every == 0 or step == total_steps(config.rl)):
        samples = phase_of(config.rl, step).settings.responses_per_prompt
        frame = last_update_frame(policy.codec, result, samples, records.prompts)
        run.folder.write_frame(frame, f"rollouts/step_{step:06d}.parquet")
    return line


def write_samples(run: RunContext, policy: Policy, result: trainer.StepResult, step: int) -> list[dict[str, Any]]:
    """Adds the step's sample responses to samples.jsonl where they are due; returns their lines."""
    if not is_due(run.config, step):
        return []
    lines = sample_lines(policy.codec, step, result.samples)
    for line in lines:
        run.folder.append_line("samples.jsonl", line)
    return lines


def warn(run: RunContext, history: list[dict[str, Any]]) -> None:
    """Warns of what began to run away at the last step of the history: in the log, run.json and wandb.

    A step that is taken again after a kill is warned of once.
    """
    step = history[-1]["step"]
    start = phase_of(run.config.rl, step).start
    found = [asdict(one) for one in find_runaways([line for line in history if line["step"] > start])]
    found = [warning for warning in found if warning["step"] == step]
    told = run.folder.record.get("warnings", [])
    recorded = [warning for warning in told if warning["step"] != step] + found
    if recorded != told:
        run.folder.update_record(warnings=recorded)
    kinds = {warning["kind"] for warning in told if warning["step"] == step}
    for warning in found:
        if warning["kind"] not in kinds:
            log.warning("[%s] %s", run.tracker.label, warning["text"])
            run.tracker.alert(warning["kind"], warning["text"])


def save_skipped(policy: Policy, step: int, skipped: list[trainer.NonFiniteUpdate], folder: RunFolder) -> Path:
    """Writes the mini-batches of updates that weren't applied to a file in the run folder; returns its path."""
    frame = responses_frame(policy.codec, [(error.responses, error.old_log_probs) for error in skipped])
    log.warning("%s", "\n".join(map(str, skipped)))
    return folder.write_frame(frame, f"rollouts/nonfinite_{step:06d}.parquet")


def note_seconds(folder: RunFolder) -> None:
    """Records the seconds that RL and its evaluations took, over all attempts."""
    seconds = {"rl": 0.0, "evaluation": 0.0}
    for line in folder.metrics():
        if line["stage"] == "rl":
            seconds["evaluation"] += line.get("time/eval_s", 0.0)
            seconds["rl"] += sum(line.get(f"time/{part}_s", 0.0) for part in ("rollout", "reward", "train"))
    for stage, spent in seconds.items():
        folder.finish_stage(stage, spent, folder.path.name, from_cache=False)
