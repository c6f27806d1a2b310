"""The same RL loop by klear_lab and by TRL: prompts, group size, lengths, mini-batches and micro-batches agree.

A step is one rollout with two updates. Random weights hardly ever stop, so all responses have the full length.
Neither side verifies anything: rewards alternate.
"""

import time
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from peers import QUIET, alternating

from gpu_parts.measure import Report, empty_cache, measured
from gpu_parts.model import load, prompts, questions
from gpu_parts.sizes import Job
from klear_lab.config import RLConfig
from klear_lab.policy.training_state import start_state
from klear_lab.rl.clip_methods import make_clip_method
from klear_lab.rl.rollout import make_groups
from klear_lab.rl.trainer import update
from klear_lab.sampling.draws import make_requests
from klear_lab.sampling.transformers import TransformersSampler
from klear_lab.sampling.types import Sampling
from klear_lab.verify.rewards import Score

STEPS, UPDATES = 2, 2  # rollouts, and updates of each
MICRO_BATCH = 8  # sequences


def run_loops(job: Job, report: Report) -> None:
    """Measures the second step of each; the first is a warm-up."""
    what = f"{job.sizes.loop_prompts} prompts x {job.sizes.samples} responses of {job.sizes.loop_tokens} tokens"
    report("a step", what)
    for name, loop in (("klear_lab", loop_of_klear_lab), ("TRL", loop_of_trl)):
        with report.guarded(name):
            loop(job, report)


def loop_of_klear_lab(job: Job, report: Report) -> None:
    """Samples and updates with the parts that `train_step` has, without verifiers."""
    sizes, policy = job.sizes, load(job)
    rl = RLConfig(
        learning_rate=1e-6,
        responses_per_prompt=sizes.samples,
        mini_batch_prompts=sizes.loop_prompts // UPDATES,
        micro_batch_sequences=micro_batch(job),
        max_response_tokens=sizes.loop_tokens,
        rollout_batch_sequences=sizes.loop_prompts * sizes.samples,
        alpha=0.0,
        weight_decay=0.0,
    )
    state = start_state(policy, learning_rate=1e-6, adam_betas=rl.adam_betas, weight_decay=rl.weight_decay)
    sampler, ids = TransformersSampler(policy), prompts(policy, sizes.loop_prompts)
    scores = [[Score(r, r > 0, True, r, "") for r in alternating(sizes.samples)] for _ in ids]
    for step in range(STEPS):
        with measured(job.device) as rollout:
            sampled = sampler.sample(make_requests(ids, sizes.samples, f"loop-{step}"), Sampling.for_rollout(rl))
            sampler.sleep()
        with measured(job.device) as trained:
            update(state, make_groups(ids, sampled, scores, rl), make_clip_method("grpo"), rl)
    report("klear_lab: a step", rollout.seconds + trained.seconds, "s")
    report("klear_lab: of which sampling", rollout.seconds, "s")
    peaks = [found.peak_gb for found in (rollout, trained) if found.peak_gb is not None]
    report("klear_lab: peak memory", max(peaks, default=None), "GB")
    del state, sampler, policy
    empty_cache()


def loop_of_trl(job: Job, report: Report) -> None:
    """Runs TRL's GRPOTrainer for as many rollouts and updates."""
    if find_spec("trl") is None:
        report("TRL", "not installed")
        return
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        """Notes when each update ended."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    sizes = job.sizes
    rollout = sizes.loop_prompts * sizes.samples
    arguments = GRPOConfig(
        output_dir=str(job.work / "trl"),
        use_cpu=job.device == "cpu",
        bf16=job.device == "cuda",
        model_init_kwargs={"dtype": "float32"},
        max_steps=STEPS * UPDATES,
        per_device_train_batch_size=micro_batch(job),
        gradient_accumulation_steps=rollout // UPDATES // micro_batch(job),
        generation_batch_size=rollout,
        num_generations=sizes.samples,
        max_completion_length=sizes.loop_tokens,
        learning_rate=1e-6,
        beta=0.0,
        **QUIET,
    )
    trainer = GRPOTrainer(
        model=str(job.model),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(
            [{"prompt": [{"role": "user", "content": text}]} for text in questions(STEPS * sizes.loop_prompts)]
        ),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[Clock()],
    )
    with measured(job.device) as found:
        trainer.train()
    report(f"TRL {version('trl')}: a step", ends[-1] - ends[-1 - UPDATES], "s")
    report("TRL: peak memory", found.peak_gb, "GB")


def micro_batch(job: Job) -> int:
    """Returns the sequences of a micro-batch, at most those of an update."""
    return min(MICRO_BATCH, job.sizes.loop_prompts * job.sizes.samples // UPDATES)


def reward(completions: list[Any], **_: Any) -> list[float]:
    """Rewards every second response."""
    return alternating(len(completions))
