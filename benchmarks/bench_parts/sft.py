"""SFT updates in batches of the default run, beside transformers' Trainer and TRL's SFTTrainer.

All three start from the same checkpoint and see the same rows in the same batches, in float32, with AdamW and
clipped gradients. Ours is the stage's own step, with the choice of the batch; the trainers' has their collation.
The batches are those after the length curriculum, of rows of all lengths. Tokenizing is done before.
"""

import math
import statistics
import time
from functools import cache
from typing import Any

from peers import QUIET

from bench_parts.environments import TRL
from bench_parts.figures import OURS, Figure
from bench_parts.work import Work

TITLE = "SFT: tokens a second"
TRAINER, SFT_TRAINER = "Trainer", "SFTTrainer"
ENVIRONMENTS = {TRAINER: TRL, SFT_TRAINER: TRL}
WARM_UP, STEPS = 3, 20


@cache
def examples(work: Work) -> Any:
    """Returns the stage's examples."""
    from klear_lab.data.tokens import read_tokens
    from klear_lab.sft import fitting

    return fitting(read_tokens(work.stage("tokens")), work.config.sft.max_tokens)


@cache
def batches(work: Work) -> list[list[tuple[list[int], list[int]]]]:
    """Returns prompt and response ids of each batch, the same for every side."""
    from klear_lab.sft import choose_batch

    steps = range(curriculum_steps(work) + 1, curriculum_steps(work) + WARM_UP + STEPS + 1)
    chosen = (choose_batch(examples(work), work.config.sft, step) for step in steps)
    return [[(e.prompt_ids, e.response_ids) for e in batch] for batch in chosen]


def curriculum_steps(work: Work) -> int:
    """Returns the steps of the length curriculum, in which batches are of short rows."""
    return math.ceil(work.config.sft.length_curriculum * work.config.sft.steps)


def measure_ours(work: Work) -> dict[str, float]:
    """Returns the seconds of 1,000 tokens in our steps."""
    from klear_lab.policy.training_state import start_state
    from klear_lab.sft import train_step

    sft = work.config.sft
    state = start_state(work.policy(), learning_rate=1e-4, adam_betas=sft.adam_betas, weight_decay=0.0)
    state.step = curriculum_steps(work)
    rows, seconds = examples(work), []
    for _ in range(WARM_UP + STEPS):
        started = time.perf_counter()
        train_step(state, rows, sft)
        seconds.append(time.perf_counter() - started)
    return summary(work, seconds)


def measure_trainer(work: Work) -> dict[str, float]:
    """Returns the seconds of 1,000 tokens in the updates of transformers' Trainer."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    arguments, model, tokenizer, clock = common(work, TrainingArguments)
    rows = [
        {"input_ids": p + r, "attention_mask": [1] * len(p + r), "labels": [-100] * len(p) + r}
        for batch in batches(work)
        for p, r in batch
    ]
    in_order(Trainer)(
        model=model,
        args=arguments,
        train_dataset=dataset(rows),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[clock],
    ).train()
    return summary(work, clock.seconds)


def measure_sft_trainer(work: Work) -> dict[str, float]:
    """Returns the seconds of 1,000 tokens in the updates of TRL's SFTTrainer."""
    from trl import SFTConfig, SFTTrainer

    arguments, model, tokenizer, clock = common(work, SFTConfig, max_length=None, completion_only_loss=True)
    rows = [
        {"input_ids": p + r, "completion_mask": [0] * len(p) + [1] * len(r)}
        for batch in batches(work)
        for p, r in batch
    ]
    in_order(SFTTrainer)(
        model=model, args=arguments, train_dataset=dataset(rows), processing_class=tokenizer, callbacks=[clock]
    ).train()
    return summary(work, clock.seconds)


SIDES = {OURS: measure_ours, TRAINER: measure_trainer, SFT_TRAINER: measure_sft_trainer}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns our figure beside each of the others."""
    return [
        Figure(
            f"1,000 tokens, {threads} thread{'s' * (threads > 1)}",
            "s",
            {side: [one["1,000 tokens"] for one in sides[side]] for side in (OURS, peer)},
            peer,
            0.5,
        )
        for threads, sides in found.items()
        for peer in (TRAINER, SFT_TRAINER)
        if peer in sides
    ]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Returns nothing: a batch has the same tokens on every side."""
    return []


def summary(work: Work, seconds: list[float]) -> dict[str, float]:
    """Returns the median over steps of the seconds of 1,000 tokens, padding not counted."""
    tokens = [sum(len(p) + len(r) for p, r in batch) for batch in batches(work)]
    each = [1000 * s / t for s, t in zip(seconds, tokens, strict=True)]
    return {"1,000 tokens": statistics.median(each[WARM_UP:])}


def common(work: Work, kind: Any, **more: Any) -> tuple[Any, Any, Any, Any]:
    """Returns arguments, model, tokenizer and a clock for either trainer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    class Clock(TrainerCallback):
        """Notes the seconds of each update, its batch's collation included."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.last = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.last = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            now = time.perf_counter()
            self.seconds.append(now - self.last)
            self.last = now

    arguments = kind(
        output_dir=str(work.folder / "trainer"),
        use_cpu=True,
        bf16=False,
        max_steps=WARM_UP + STEPS,
        per_device_train_batch_size=work.config.sft.batch_sequences,
        learning_rate=1e-4,
        weight_decay=0.0,
        max_grad_norm=work.config.sft.max_grad_norm,
        optim="adamw_torch_fused",
        **QUIET,
        **more,
    )
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype="float32")
    return arguments, model, AutoTokenizer.from_pretrained(work.model), Clock()


def in_order(trainer: Any) -> Any:
    """Returns the trainer's class with batches in the order of the rows."""
    from torch.utils.data import SequentialSampler

    class InOrder(trainer):  # type: ignore[misc]
        """Takes rows as they come."""

        def _get_train_sampler(self, rows: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if rows is None else rows)

    return InOrder


def dataset(rows: list[dict[str, Any]]) -> Any:
    """Returns the rows as a data set."""
    from datasets import Dataset

    return Dataset.from_list(rows)
