"""One RL step of the default run: 32 prompts x 8 responses, 8 updates, no group dropped; TRL does the same.

Both start from the same SFT checkpoint and prompts, sample at temperature 1, and update with the same batches of
32 responses in float32. Rewards alternate, nothing is verified and no group is dropped. A step of TRL's, as of
ours, has one sampling, responses decoded and scored, the old log-probabilities, eight updates and the metrics.
"""

import statistics
import time
from typing import Any

import torch
from peers import QUIET, alternating

from bench_parts.environments import TRL
from bench_parts.figures import OURS, Figure
from bench_parts.our_step import KEEP_ALL, OurSteps, prompts_of, timed
from bench_parts.work import Work

TITLE = "One RL step: 32 prompts x 8 responses, 8 updates"
PEER = "TRL"
ENVIRONMENTS = {PEER: TRL}
WARM_UP, STEPS = 2, 6


def measure_ours(work: Work) -> dict[str, float]:
    """Returns the seconds of our step and its parts, medians over steps."""
    config = work.composed("clip_method=gppo", KEEP_ALL)
    steps = OurSteps(config, work.policy(config), work.rows("rl.jsonl"))
    return medians([steps.step() for _ in range(WARM_UP + STEPS)][WARM_UP:])


def measure_trl(work: Work) -> dict[str, float]:
    """Returns the seconds of TRL's step and its parts, medians over steps."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    rl, rows = work.config.rl, work.rows("rl.jsonl")
    updates = rl.prompts_per_step // rl.mini_batch_prompts
    steps = WARM_UP + STEPS
    prompts = [prompt for n in range(steps) for prompt in prompts_of(work.config, rows, n + 1)]
    ends: list[float] = []
    counts: list[int] = []
    sampled: list[float] = []
    old_s: list[float] = []

    class Clock(TrainerCallback):
        """Notes when each update ended."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    class Timed(GRPOTrainer):
        """Notes what sampling and the pass for old log-probabilities took."""

        def _generate(self, *given: Any) -> Any:
            return timed(sampled, super()._generate, *given)

        def _get_per_token_logps_and_entropies(self, *given: Any, **named: Any) -> Any:
            if torch.is_grad_enabled():
                return super()._get_per_token_logps_and_entropies(*given, **named)
            return timed(old_s, super()._get_per_token_logps_and_entropies, *given, **named)

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        counts.append(sum(map(len, completion_ids)))
        return alternating(len(completion_ids))

    arguments = GRPOConfig(
        output_dir=str(work.folder / "trl"),
        use_cpu=True,
        bf16=False,
        max_steps=steps * updates,
        per_device_train_batch_size=rl.mini_batch_prompts * rl.responses_per_prompt,
        steps_per_generation=updates,
        num_generations=rl.responses_per_prompt,
        max_completion_length=rl.max_response_tokens,
        learning_rate=rl.learning_rate,
        weight_decay=rl.weight_decay,
        beta=0.0,
        shuffle_dataset=False,
        **QUIET,
    )
    trainer = Timed(
        model=str(work.model),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=AutoTokenizer.from_pretrained(work.model),
        callbacks=[Clock()],
    )
    trainer.train()
    found = []
    passes = len(old_s) // steps
    for number in range(WARM_UP, steps):
        step = ends[updates * (number + 1) - 1] - ends[updates * number - 1]
        old = sum(old_s[passes * number : passes * (number + 1)])
        found.append(
            {
                "step": step,
                "sampling": sampled[number],
                "old log-probabilities": old,
                "updates": step - sampled[number] - old,
                "tokens": counts[number],
            }
        )
    return medians(found)


SIDES = {OURS: measure_ours, PEER: measure_trl}


def figures(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[Figure]:
    """Returns the figures of what each side found, by the number of threads."""
    goals = {"step": 0.5}
    names = ("step", "sampling", "old log-probabilities", "updates")
    return [
        Figure(
            f"{name}, {threads} thread{'s' * (threads > 1)}",
            "s",
            {side: [one[name] for one in ones] for side, ones in sides.items()},
            PEER,
            goals.get(name),
        )
        for threads, sides in found.items()
        for name in names
    ]


def notes(found: dict[int, dict[str, list[dict[str, float]]]]) -> list[str]:
    """Says how many tokens the sides have sampled, which differ as their draws do."""
    tokens = {side: statistics.median(one["tokens"] for one in ones) for side, ones in found[min(found)].items()}
    told = ", ".join(f"{side} {count:,.0f}" for side, count in tokens.items())
    ours = found[min(found)][OURS]
    decoded, whole, computed = (
        statistics.median(one[f"tokens {what}"] for one in ours) for what in ("decoded", "to read", "computed")
    )
    return [
        f"Tokens sampled in a step, median: {told}. Updates include all that is in no other row: responses "
        "decoded and scored, advantages, metrics.",
        "What sequences have in common at their start is computed once, and this checkpoint's responses to a "
        f"prompt have much in common: {decoded:,.0f} tokens are computed to sample {tokens[OURS]:,.0f}, and "
        f"{computed:,.0f} of the {whole:,.0f} that training reads, each response's prompt included. Where they "
        "have nothing in common but their prompts, a token takes 1.3 to 1.4 times as long to sample, and training "
        "1.6 to 2 times.",
    ]


def medians(found: list[dict[str, float]]) -> dict[str, float]:
    """Returns each quantity's median over steps."""
    return {name: statistics.median(one[name] for one in found) for name in found[0]}
