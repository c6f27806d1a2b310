"""klear_lab's keys as TRL's arguments.

| ours | TRL's |
|---|---|
| prompts trained on / mini_batch_prompts, its updates | steps_per_generation / gradient_accumulation_steps |
| responses_per_prompt, epochs | num_generations, num_iterations |
| micro_batch_sequences, the most at once | per_device_train_batch_size, the most that divides a mini-batch |
| learning_rate, adam_betas, weight_decay, max_grad_norm | the same, all weights decayed alike |
| warmup_updates | a schedule of our own (trainer.py), since TRL's counts what it never knows in advance |
| alpha, what is dropped, masked and divided by, mismatch_* | none: our own code does these |

An RL step is a rollout with all of its updates; TRL's `global_step` counts updates. TRL's own clipping, KL, reward
scaling and correction for vLLM stay off or unread. Responses come from the whole distribution: top-p 1, no top-k.
"""

from pathlib import Path
from typing import Any

from trl import GRPOConfig

from klear_lab.config import Config
from klear_lab.engines.trl.processes import count
from klear_lab.policy.model import Policy

# What run.json keeps of the arguments.
RECORDED = (
    *("per_device_train_batch_size", "gradient_accumulation_steps", "steps_per_generation", "num_iterations"),
    *("num_generations", "temperature", "top_p", "activation_checkpointing", "max_grad_norm", "max_steps"),
    *("use_vllm", "vllm_mode", "vllm_importance_sampling_correction"),
)


def make_arguments(config: Config, policy: Policy, output: Path) -> GRPOConfig:
    """Returns TRL's arguments for a run; checkpoints go into `output`."""
    rl, server = config.rl, config.engine.vllm_server
    size, accumulated = cut(rl.mini_batch_prompts * rl.responses_per_prompt, count(), rl.micro_batch_sequences)
    mini_batches = rl.trained_prompts // rl.mini_batch_prompts
    return GRPOConfig(
        output_dir=str(output),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
        steps_per_generation=accumulated * mini_batches,
        num_iterations=rl.epochs,
        num_generations=rl.responses_per_prompt,
        max_completion_length=rl.max_response_tokens,
        max_steps=rl.steps * mini_batches * rl.epochs,  # at most: steps whose groups are dropped have fewer
        temperature=rl.temperature,
        top_p=1.0,
        top_k=0,
        learning_rate=rl.learning_rate,
        adam_beta1=rl.adam_betas[0],
        adam_beta2=rl.adam_betas[1],
        weight_decay=rl.weight_decay,
        max_grad_norm=rl.max_grad_norm,
        beta=0.0,  # no KL
        bf16=False,  # the policy's own autocast: accelerate's would turn the sampler's cache to float32 too
        activation_checkpointing=config.model.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=policy.device.type == "cpu",
        seed=config.seed,
        use_vllm=server is not None,
        vllm_mode="server",
        vllm_server_base_url=server,
        # Our loss corrects for the mismatch as rl.mismatch_correction says; TRL's default would do so in secret.
        vllm_importance_sampling_correction=False,
        ignore_data_skip=True,  # the next rows follow from the step's number
        save_strategy="no",  # after RL steps, not updates: trainer.py
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        ddp_timeout=30 * 24 * 3600,
        ddp_find_unused_parameters=False,
    )


def cut(sequences: int, processes: int, most: int) -> tuple[int, int]:
    """Returns how many sequences a process takes at once, and how many times for a mini-batch."""
    own = sequences // processes
    size = max(n for n in range(1, min(most, own) + 1) if own % n == 0)
    return size, own // size


def recorded(arguments: Any) -> dict[str, Any]:
    """Returns what run.json keeps of the arguments."""
    return {"processes": count(), **{name: getattr(arguments, name) for name in RECORDED}}
