"""What engine=trl can't honour, each as a line that names the key; found before anything is loaded or trained.

This imports neither TRL nor torch, since every config is checked.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from klear_lab.config import Config
from klear_lab.engines.trl.processes import count

# key: the values that TRL can follow, and what to do about others.
ONLY: dict[str, tuple[Any, str]] = {
    "token_mean": ("mini_batch", "its loss is a mean over the whole mini-batch"),
    "micro_batch_tokens": (
        None,
        "it cuts a mini-batch by sequences; set rl.micro_batch_tokens=null and rl.micro_batch_sequences",
    ),
    "on_nonfinite": ("stop", "it has no way to leave an update out"),
    "warmup_unit": ("update", "its schedule counts updates"),
    "phases": ([], "it has one optimizer and one warm-up; run each phase as a run of its own"),
}


def contradictions_of(config: Config) -> Iterator[str]:
    """Yields a line for each key whose value engine=trl can't follow, or which only engine=trl reads."""
    engine, rl = config.engine, config.rl
    if engine.name != "trl":
        if engine.vllm_server is not None:
            yield f"engine.vllm_server={engine.vllm_server}: only engine=trl reads it; must be null"
        return
    for key, (value, why) in ONLY.items():
        if getattr(rl, key) != value:
            yield f"rl.{key}={getattr(rl, key)}: engine=trl can't follow it, since {why}; or set engine=local"
    if engine.vllm_server is not None and config.sampler.name != "vllm":
        yield f"engine.vllm_server={engine.vllm_server}: needs sampler=vllm"


def missing(config: Config) -> Iterator[str]:
    """Yields a line for what a run with engine=trl lacks here: TRL itself, or a fitting number of processes."""
    if config.engine.name != "trl":
        return
    if absent := [name for name in ("trl", "accelerate", "datasets") if find_spec(name) is None]:
        yield (
            f"engine=trl: {', '.join(absent)} isn't installed here; in the checkout, pip install -e '.[trl]', "
            "or set engine=local"
        )
    rl, processes = config.rl, count()
    sequences = rl.mini_batch_prompts * rl.responses_per_prompt
    if sequences % processes:
        yield (
            f"rl.mini_batch_prompts={rl.mini_batch_prompts}: with rl.responses_per_prompt="
            f"{rl.responses_per_prompt} a mini-batch has {sequences} sequences, which {processes} processes can't "
            "share evenly; launch another number of processes"
        )
    if (precision := os.environ.get("ACCELERATE_MIXED_PRECISION", "no")) != "no":
        yield f"accelerate's mixed_precision={precision}: must be no, since model.precision chooses the precision"
    if config.engine.vllm_server is None:
        if is_sharded():
            yield (
                f"sampler={config.sampler.name}: can't draw from weights that processes share (FSDP, ZeRO-3); set "
                "sampler=vllm engine.vllm_server=http://host:port"
            )
        elif processes > 1 and config.sampler.name == "vllm":
            yield (
                f"sampler=vllm: {processes} processes need a server of their own; set "
                "engine.vllm_server=http://host:port, or sampler=transformers"
            )
    if uses_deepspeed() and (clip := os.environ.get("ACCELERATE_GRADIENT_CLIPPING")) != str(rl.max_grad_norm):
        yield f"rl.max_grad_norm={rl.max_grad_norm}: DeepSpeed's gradient_clipping, now {clip}, must be the same"
    if config.optimizer != "adamw" and is_sharded():
        yield f"optimizer={config.optimizer}: has no form for weights that processes share; must be adamw"
    if config.model.lora_rank is not None and is_sharded():
        yield f"model.lora_rank={config.model.lora_rank}: untried with FSDP and ZeRO-3; must be null"


def is_sharded() -> bool:
    """Tells whether accelerate was launched so that each process holds a part of the weights."""
    zero3 = uses_deepspeed() and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    return zero3 or os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"


def uses_deepspeed() -> bool:
    """Tells whether accelerate was launched with DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true"
