"""What verl can't honour of klear_lab's config: each is an error that names the key and the engine."""

import dataclasses
from typing import Any

from klear_lab.config import Config, ConfigError, value_of
from klear_lab.engines.verl.phases import trainings
from klear_lab.engines.verl.sizes import cards, longest_prompt, shares
from klear_lab.identity import default_of

# Key of ours -> the values that verl can take, and what to do about others.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "rl.train_prompts": ((None,), "trains on all groups that it samples"),
    "rl.max_rollouts": ((1,), "samples again with engine.refill_groups=true"),
    "rl.overlong_buffer": ((None,), "rewards responses whatever their length"),
    "rl.token_mean": (("mini_batch", "micro_batch"), "has no mean over responses"),
    "eval.response_budget": ((1.0,), "has one length for all responses; evaluate afterwards with recipe=base"),
    "token_records.every": ((None,), "keeps no records of single tokens"),
    "samples.responses": ((0,), "keeps no samples; validation/ in its folder has all answers to the benchmarks"),
    "device": (("auto", "cuda"), "trains on NVIDIA GPUs alone"),
    "model.lora_rank": ((None,), "leaves no merged weights to go on from"),
}
# Keys of `engine` that no other engine reads.
OWN_KEYS = (
    *("trainer_mode", "nodes", "gpus_per_node", "rollout", "tensor_parallel", "refill_groups"),
    "sequence_parallel",
    *("rollout_nodes", "rollout_gpus_per_node"),
)


def refusals(config: Config) -> list[str]:
    """Returns a line for each key that verl can't honour, and for sizes that can't be cut for its GPUs."""
    try:
        phases = trainings(config)
    except ConfigError:
        return []  # said where phases are read for every engine
    return [*dict.fromkeys(line for phase in phases for line in refusals_of_phase(phase.config))]


def refusals_of_phase(config: Config) -> list[str]:
    """Returns those lines for a config of one phase."""
    found = [
        f"{key}={value_of(config, key)}: engine=verl {why}; must be {' or '.join(map(str, allowed))}"
        for key, (allowed, why) in REFUSED.items()
        if value_of(config, key) not in allowed
    ]
    if config.clip_method["name"] == "custom":
        found.append("clip_method=custom: engine=verl's other machines don't have its file; set engine=local")
    return [*found, *size_problems(config), *rollout_problems(config), *correct_problems(config)]


def size_problems(config: Config) -> list[str]:
    """Returns what verl can't cut evenly, and steps and tokens that are too few for it."""
    rl, gpus = config.rl, cards(config)
    found: list[str] = []
    if min(rl.mini_batch_prompts, gpus, config.engine.tensor_parallel, config.engine.sequence_parallel) < 1:
        return found  # named already, as out of range
    if rl.steps < 1:
        found.append("rl.steps=0: engine=verl trains; evaluate a model with engine=local")
    if gpus % config.engine.sequence_parallel:
        found.append(
            f"engine.sequence_parallel={config.engine.sequence_parallel}: must divide engine.nodes times "
            f"engine.gpus_per_node={gpus}"
        )
    elif rl.mini_batch_prompts * rl.responses_per_prompt % shares(config):
        found.append(
            f"rl.mini_batch_prompts={rl.mini_batch_prompts}: engine=verl shares a mini-batch of "
            f"{rl.mini_batch_prompts * rl.responses_per_prompt} responses among {shares(config)} GPUs "
            "(engine.nodes times engine.gpus_per_node, by engine.sequence_parallel), which must divide it"
        )
    if gpus % config.engine.tensor_parallel:
        found.append(
            f"engine.tensor_parallel={config.engine.tensor_parallel}: must divide engine.nodes times "
            f"engine.gpus_per_node={gpus}"
        )
    longest = longest_prompt(config) + rl.max_response_tokens
    if rl.micro_batch_tokens is not None and rl.micro_batch_tokens < longest:
        found.append(
            f"rl.micro_batch_tokens={rl.micro_batch_tokens}: engine=verl needs room in it for a whole prompt and "
            f"response, data.max_prompt_tokens + rl.max_response_tokens={longest}"
        )
    return found


def rollout_problems(config: Config) -> list[str]:
    """Returns what contradicts the program that samples and its GPUs."""
    engine, found = config.engine, []
    if config.sampler.name == "vllm" and engine.rollout != "vllm":
        found.append(f"sampler=vllm: engine=verl samples with engine.rollout={engine.rollout}; leave sampler out")
    apart = engine.trainer_mode == "separate_async"
    if apart and engine.rollout_nodes < 1:
        found.append(
            "engine.rollout_nodes=0: engine.trainer_mode=separate_async samples on nodes of its own; must be at "
            "least 1"
        )
    if not apart and engine.rollout_nodes:
        found.append(
            f"engine.rollout_nodes={engine.rollout_nodes}: only engine.trainer_mode=separate_async has them; must "
            "be 0"
        )
    return found


def correct_problems(config: Config) -> list[str]:
    """Returns rewards by which the SFT term couldn't tell right answers, which are known by their reward there."""
    reward = config.reward
    others = {"wrong": reward.wrong, "unclosed_think": reward.unclosed_think, "no_think": reward.no_think}
    return [
        f"reward.{key}={value}: engine=verl tells right answers by their reward, so it must be below "
        f"reward.correct={reward.correct} with rl.alpha={config.rl.alpha}"
        for key, value in others.items()
        if config.rl.alpha > 0 and value is not None and value >= reward.correct
    ]


def unread_keys(config: Config) -> list[str]:
    """Returns a line for each key of verl's that is set for another engine."""
    return [
        f"engine.{f.name}={getattr(config.engine, f.name)}: only verl has it; set engine=verl, or leave it out"
        for f in dataclasses.fields(config.engine)
        if f.name in OWN_KEYS and getattr(config.engine, f.name) != default_of(f)
    ]
