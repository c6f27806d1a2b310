"""Supervised fine-tuning on teacher traces.

    AdamW, linear warm-up, cosine to `final_learning_rate` times the peak, mean token loss over the batch,
    gradient clipping; loss on the response only, its end-of-sequence token included.

Deviations from the paper:
1. Steps instead of epochs; each draws its rows afresh unless `sft.batches` is epochs.
2. For the embedded worlds a length curriculum: the allowed response length grows from the shortest to the longest
   over the first `length_curriculum` of the steps. Without it a tiny model from scratch doesn't find the algorithm
   in long traces. 0 switches it off, as for real models.

    python -m klear_lab.run rl.steps=0
"""

import logging
import math
import random
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from klear_lab.config import Config, ConfigError, SFTConfig
from klear_lab.data.lengths import check_positions
from klear_lab.data.prepare import read_json_lines, write_json_lines
from klear_lab.data.tokens import TokenTable, tokenized
from klear_lab.identity import identity_of
from klear_lab.policy.codec import Codec
from klear_lab.policy.folder_checks import position_limit
from klear_lab.policy.log_probs import cut_for, response_log_probs
from klear_lab.policy.memory import explained_memory, training_advice
from klear_lab.policy.micro_batches import length, most_sequences_of
from klear_lab.policy.model import Policy, load_policy, load_pretrained
from klear_lab.policy.throughput import forget_peak_memory, memory_metrics, utilisation
from klear_lab.policy.training_state import (
    TrainingState,
    apply_gradient,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    start_state,
)
from klear_lab.rows import places_in_epochs
from klear_lab.run_context import RunContext
from klear_lab.storage.files import forget_checkpoints
from klear_lab.storage.fingerprints import weights_fingerprint
from klear_lab.storage.interruption import Interrupted
from klear_lab.storage.stage_cache import STAGE_VERSIONS, cache_folder, cached, reading

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """Holds the token ids of one SFT row, the prompt and the response to learn."""

    prompt_ids: list[int]
    response_ids: list[int]


@dataclass(frozen=True)
class Examples:
    """The SFT rows that are short enough, shortest response first; their token ids are read when asked for."""

    table: TokenTable
    number_E: NDArray[np.int64]  # of each example's row in the table

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self.number_E)

    def __getitem__(self, place: int) -> Example:
        """Returns one of them."""
        return Example(*self.table.row(int(self.number_E[place])))

    def __iter__(self) -> Iterator[Example]:
        """Yields all of them."""
        return (self[place] for place in range(len(self)))

    @cached_property
    def response_length_E(self) -> NDArray[np.int64]:
        """Returns the tokens of each response, in ascending order."""
        return self.table.response_length_R[self.number_E]

    @property
    def longest(self) -> int:
        """Returns the tokens of the longest prompt with its response."""
        return int((self.table.prompt_length_R + self.table.response_length_R)[self.number_E].max())


def run_sft_stage(run: RunContext) -> Policy:
    """Returns the policy that RL starts from, trained now or by another run; logs its metrics either way."""
    config, folder = run.config, run.folder
    content = sft_content(config, run.data_key, str(run.device))

    def make(partial: Path) -> None:
        policy = load_policy(config.model, run.device, config.sft.seed)
        train_sft(run, policy, partial / "checkpoint.pt")

    stage = cached("sft", content, cache_folder(config), make, run.stop)
    with reading(stage.folder):
        lines = read_json_lines(stage.folder / "metrics.jsonl") if stage.from_cache else []
        policy = load_pretrained(stage.folder / "model", config.model, run.device)
    for line in lines:
        run.tracker.log("sft", line.pop("step"), line)
    folder.finish_stage("sft", stage.seconds, stage.key, stage.from_cache)
    return policy


def sft_content(config: Config, data_key: str, device: str) -> dict[str, Any]:
    """Returns all that the SFT checkpoint depends on, by which the stage cache knows it."""
    content = {
        "version": STAGE_VERSIONS["sft"],
        "data": data_key,
        "sft": identity_of(config.sft),
        "model": identity_of(config.model),
        "weights": weights_fingerprint(config.model, cache_folder(config)),
        "device": device,
        "cpu_threads": config.cpu_threads,
    }
    if config.optimizer != "adamw":
        content["optimizer"] = config.optimizer
    if config.model.path is not None:  # of a model from scratch, responses end as before there was a codec
        content["turn end"] = "the template's"
    return content


def train_sft(run: RunContext, policy: Policy, checkpoint: Path) -> None:
    """Trains from the last checkpoint on; writes `model/` and `metrics.jsonl` beside it, and then removes it.

    Raises `FloatingPointError` for a gradient that isn't finite, naming the file with its batch, and `Interrupted`
    when asked to stop, after it saved a checkpoint.
    """
    settings, tracker, stop = run.config.sft, run.tracker, run.stop
    cache_dir, display = cache_folder(run.config), tracker.display
    table = tokenized(run.data.sft_rows, run.data_key, policy.codec, cache_dir, stop, display)
    examples, limit = fitting(table, settings.max_tokens), position_limit(policy.model.config)
    check_positions(examples.longest, settings.max_tokens, limit, run.config.model.path)
    passes = settings.steps * min(settings.batch_sequences, len(examples)) / len(examples)
    said = "SFT on %d of %d rows (those within sft.max_tokens), as many as in %.2f passes over them"
    log.info(said, len(examples), len(table), passes)
    state = start_state(
        policy,
        learning_rate=settings.learning_rate,
        adam_betas=settings.adam_betas,
        weight_decay=settings.weight_decay,
        optimizer=run.config.optimizer,
    )
    if (saved := find_checkpoint(checkpoint, policy)) is not None:
        load_checkpoint(state, saved)
    most = min(settings.micro_batch_sequences, len(examples))
    largest = examples.longest, most_sequences_of(examples.longest, most, settings.micro_batch_tokens)
    advice = training_advice(run.config, "sft", *largest)
    for line in state.history:
        tracker.log("sft", line["step"], {key: value for key, value in line.items() if key != "step"})
    with tracker.display.stage("SFT", settings.steps, state.step):
        while state.step < settings.steps:
            try:
                with explained_memory("SFT update", advice):
                    metrics = train_step(state, examples, settings)
            except FloatingPointError as error:
                batch = batch_frame(policy.codec, choose_batch(examples, settings, state.step + 1))
                file = run.folder.write_frame(batch, f"nonfinite_sft_{state.step + 1:06d}.parquet")
                raise FloatingPointError(f"{error}; its batch is in {file}") from error
            if state.step % settings.log_every == 0 or state.step in (1, settings.steps):
                state.history.append({"step": state.step, **metrics})
                tracker.log("sft", state.step, metrics)
            tracker.display.show("SFT", state.step, settings.steps, metrics)
            if state.step == settings.steps:
                break
            if state.step % run.config.checkpoint.sft_every == 0 or stop.requested:
                save_checkpoint(state, checkpoint, run.config.checkpoint.keep)
            if stop.requested:
                raise Interrupted(f"saved after SFT step {state.step}; the same command goes on from there")
    policy.save(checkpoint.parent / "model")
    write_json_lines(state.history, checkpoint.parent / "metrics.jsonl")
    forget_checkpoints(checkpoint)


def fitting(table: TokenTable, max_tokens: int) -> Examples:
    """Returns the rows of at most `max_tokens`, shortest response first.

    Raises `ConfigError` where there is none.
    """
    fit = np.flatnonzero(table.prompt_length_R + table.response_length_R <= max_tokens)
    if not len(fit):
        raise ConfigError(f"sft.max_tokens={max_tokens}: every one of {len(table)} SFT rows is longer; raise it")
    return Examples(table, fit[np.argsort(table.response_length_R[fit], kind="stable")])


def train_step(state: TrainingState, examples: Examples, config: SFTConfig) -> dict[str, float | None]:
    """Makes one update and moves `state` on by one step. Returns the step's metrics.

    Raises `FloatingPointError` for a gradient that isn't finite, without applying the update.
    """
    forget_peak_memory(state.policy.device)
    started = time.perf_counter()
    step = state.step + 1
    batch = choose_batch(examples, config, step)
    loss = backward(state.policy, batch, config.micro_batch_sequences, config.micro_batch_tokens)
    norm = apply_gradient(state, "sft", learning_rate(config, step), config.max_grad_norm)
    state.step = step
    seconds = time.perf_counter() - started
    lengths = [*map(length, batch)]
    return {
        "loss/sft": loss,
        "optim/grad_norm": norm,
        "optim/lr": learning_rate(config, step),
        "time/train_s": seconds,
        "perf/tokens_per_s": sum(lengths) / seconds,
        "perf/mfu": utilisation(state.policy.model, lengths, seconds),
        **memory_metrics(state.policy.device),
    }


def backward(policy: Policy, batch: list[Example], most_sequences: int, most_tokens: int | None = None) -> float:
    """Adds the gradient of the mean token loss of the whole batch; returns that loss in nats.

    The limits are those of a forward pass and change memory alone.
    """
    token_count = sum(len(e.response_ids) for e in batch)
    total = 0.0
    for micro_batch in cut_for(policy, batch, most_sequences, most_tokens):
        log_prob_N, _ = response_log_probs(policy, micro_batch)
        loss = -log_prob_N.sum() / token_count
        loss.backward()
        total += loss.item()
    return total


def choose_batch(examples: Examples, config: SFTConfig, step: int) -> list[Example]:
    """Returns the examples of a step."""
    return [examples[place] for place in draw_places(examples.response_length_E, config, step)]


def draw_places(response_length_E: Sequence[int] | NDArray[np.int64], config: SFTConfig, step: int) -> list[int]:
    """Chooses the places of a step's examples, of those that are short enough by now; a function of (seed, step).

    `response_length_E` are the examples' response lengths, in ascending order.
    """
    if config.batches == "epochs":
        examples = len(response_length_E)
        count = min(examples, config.batch_sequences)
        return places_in_epochs(examples, range((step - 1) * count, step * count), f"{config.seed}-sft-epoch")
    generator = random.Random(f"{config.seed}-sft-{step}")
    allowed = allowed_examples(response_length_E, config, step)
    return generator.sample(range(allowed), min(allowed, config.batch_sequences))


def batch_frame(codec: Codec, batch: list[Example]) -> pd.DataFrame:
    """Returns one row for each example, as text and as token ids."""
    rows = [
        {
            "prompt": codec.decode(example.prompt_ids),
            "response": codec.decode(example.response_ids),
            "prompt_ids": example.prompt_ids,
            "response_ids": example.response_ids,
        }
        for example in batch
    ]
    return pd.DataFrame(rows)


def allowed_examples(response_length_E: Sequence[int] | NDArray[np.int64], config: SFTConfig, step: int) -> int:
    """Returns how many of the examples, shortest first, the curriculum has reached."""
    ramp = config.length_curriculum * config.steps
    if step > ramp:
        return len(response_length_E)
    shortest, longest = int(response_length_E[0]), int(response_length_E[-1])
    limit = shortest + (longest - shortest) * step / ramp
    return bisect_right(response_length_E, limit)


def learning_rate(config: SFTConfig, step: int) -> float:
    """Returns a step's learning rate: linear warm-up, then a cosine to `final_learning_rate` times the peak.

    The cosine ends at the last step.
    """
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    floor = config.final_learning_rate
    return config.learning_rate * (floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2)
