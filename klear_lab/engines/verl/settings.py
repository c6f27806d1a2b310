"""From klear_lab's config to verl's: one table of what each key becomes.

COPIED and COMPUTED become keys of verl's, KEPT are honoured by klear_lab's own code, UNUSED change no result;
refusals.py has those of which verl can take some values alone. All other keys (data, SFT, the model's shape) act
before RL starts, whatever the engine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from klear_lab.config import Config, value_of
from klear_lab.engines.verl.sizes import longest_prompt, micro_batch, tokens_of_a_gpu, updates_per_step

REGISTER = "klear_lab.engines.verl.register"  # imported in each of verl's processes that trains
LOSS_CONFIG = "klear_lab.engines.verl.policy_loss.KlearLossConfig"
ALGORITHM_CONFIG = "klear_lab.engines.verl.advantages.KlearAlgorithmConfig"
REWARDS = "pkg://klear_lab.engines.verl.reward"
ADVANTAGES = "klear_lab"  # the name of our advantage estimator
ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "actor_rollout_ref.model"
SMALLEST_WEIGHT = 1e-9  # verl wants a lower bound above 0, and cuts its weights at exp(-20)
MODES = ("sync", "colocate_async", "separate_async")

# Key of ours -> key of verl's with the same meaning.
COPIED = {
    "rl.learning_rate": f"{ACTOR}.optim.lr",
    "rl.weight_decay": f"{ACTOR}.optim.weight_decay",
    "rl.adam_betas": f"{ACTOR}.optim.betas",
    "rl.max_grad_norm": f"{ACTOR}.optim.clip_grad",
    "rl.prompts_per_step": "data.train_batch_size",
    "rl.responses_per_prompt": f"{ROLLOUT}.n",
    "rl.mini_batch_prompts": f"{ACTOR}.ppo_mini_batch_size",
    "rl.epochs": f"{ACTOR}.ppo_epochs",
    "rl.temperature": f"{ROLLOUT}.temperature",
    "rl.max_response_tokens": "data.max_response_length",
    "rl.steps": "trainer.total_training_steps",
    "rl.divide_by_std": "algorithm.norm_adv_by_std_in_grpo",
    "rl.alpha": f"{ACTOR}.policy_loss.alpha",
    "rl.token_mean": f"{ACTOR}.policy_loss.token_mean",
    "rl.warmup_updates": f"{ACTOR}.policy_loss.warmup_updates",
    "rl.warmup_unit": f"{ACTOR}.policy_loss.warmup_unit",
    "rl.on_nonfinite": f"{ACTOR}.policy_loss.on_nonfinite",
    "rl.mask_overlong": "algorithm.mask_overlong",
    "rl.overlong_counts": "algorithm.overlong_counts",
    "rl.drop_zero_advantage": "algorithm.drop_zero_advantage",
    "rl.drop_equal": "algorithm.drop_equal",
    "rl.group_std": "algorithm.group_std",
    "eval.samples": f"{ROLLOUT}.val_kwargs.n",
    "eval.temperature": f"{ROLLOUT}.val_kwargs.temperature",
    "eval.top_p": f"{ROLLOUT}.val_kwargs.top_p",
    "checkpoint.rl_every": "trainer.save_freq",
    "checkpoint.keep": "trainer.max_actor_ckpt_to_keep",
    "sampler.gpu_memory_utilization": f"{ROLLOUT}.gpu_memory_utilization",
    "sampler.max_model_len": f"{ROLLOUT}.max_model_len",
    "model.gradient_checkpointing": f"{MODEL}.enable_gradient_checkpointing",
    "seed": "data.seed",
    "engine.trainer_mode": "trainer.v1.trainer_mode",
    "engine.nodes": "trainer.nnodes",
    "engine.gpus_per_node": "trainer.n_gpus_per_node",
    "engine.rollout": f"{ROLLOUT}.name",
    "engine.tensor_parallel": f"{ROLLOUT}.tensor_model_parallel_size",
    "engine.sequence_parallel": f"{ACTOR}.ulysses_sequence_parallel_size",
    "engine.refill_groups": "algorithm.filter_groups.enable",
}


@dataclass(frozen=True)
class Computed:
    """Describes a key of verl's whose value comes from some keys of ours."""

    keys: tuple[str, ...]
    target: str
    value: Callable[[Config], Any]


def optimizer_class(config: Config) -> tuple[str, str]:
    """Returns the module and the name of the optimizer's class."""
    names = {"adamw_8bit": "AdamW8bit", "adamw_paged": "PagedAdamW8bit"}
    if config.optimizer in names:
        return "bitsandbytes.optim", names[config.optimizer]
    return "torch.optim", "AdamW"


def correction(config: Config) -> dict[str, Any]:
    """Returns verl's name for the correction of mismatch: the level of its weights, and their bounds."""
    from klear_lab.rl.mismatch import Correction  # not above: --help needn't wait for torch

    ours = Correction.of(config.rl)
    if ours.name == "none":
        return {"rollout_is": None}
    if ours.name == "tis":
        return {"rollout_is": "token", "rollout_is_threshold": ours.high}
    level = "sequence" if ours.name == "sequence_mask" else "token"
    return {"rollout_is": level, "rollout_is_threshold": f"{ours.low or SMALLEST_WEIGHT}_{ours.high}"}


def precision(config: Config, names: tuple[str, str]) -> str:
    """Returns the first of two names where matrix products run in bfloat16, the second for float32."""
    return names[config.model.precision == "float32"]


def positions(config: Config) -> dict[str, int]:
    """Returns what replaces the positions that the model's own config says; nothing where none are set."""
    return {} if config.model.positions is None else {"max_position_embeddings": config.model.positions}


def vllm_arguments(config: Config) -> dict[str, Any]:
    """Returns further arguments of vLLM, which looks into the model's own config."""
    return {"hf_overrides": positions(config)} if config.model.positions is not None else {}


CORRECTION = ("rl.mismatch_correction", "rl.mismatch_low", "rl.mismatch_high")
ROLLOUT_CARDS = ("engine.trainer_mode", "engine.rollout_nodes", "engine.rollout_gpus_per_node")
CLIP = f"{ACTOR}.policy_loss"
COMPUTED = (
    Computed(("clip_method",), f"{CLIP}.loss_mode", lambda c: f"klear_{c.clip_method['name']}"),
    Computed(
        ("clip_method",), f"{CLIP}.parameters", lambda c: {k: v for k, v in c.clip_method.items() if k != "name"}
    ),
    Computed(("rl.warmup_updates",), f"{CLIP}.updates_per_step", updates_per_step),
    Computed(("optimizer",), f"{ACTOR}.optim.optimizer_impl", lambda c: optimizer_class(c)[0]),
    Computed(("optimizer",), f"{ACTOR}.optim.optimizer", lambda c: optimizer_class(c)[1]),
    Computed(("rl.micro_batch_sequences",), f"{ACTOR}.ppo_micro_batch_size_per_gpu", micro_batch),
    Computed(("rl.micro_batch_sequences",), f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu", micro_batch),
    Computed(
        ("rl.micro_batch_tokens",), f"{ACTOR}.use_dynamic_bsz", lambda c: c.rl.micro_batch_tokens is not None
    ),
    Computed(
        ("rl.micro_batch_tokens", "engine.sequence_parallel"),
        f"{ACTOR}.ppo_max_token_len_per_gpu",
        lambda c: tokens_of_a_gpu(c, c.rl.micro_batch_tokens),
    ),
    Computed(
        ("rl.rollout_batch_sequences", "sampler.max_num_seqs"),
        f"{ROLLOUT}.max_num_seqs",
        lambda c: c.sampler.max_num_seqs if c.sampler.name == "vllm" else c.rl.rollout_batch_sequences,
    ),
    Computed(CORRECTION, "algorithm.rollout_correction", correction),
    Computed(("rl.max_response_tokens",), "algorithm.max_response_tokens", lambda c: c.rl.max_response_tokens),
    Computed(("reward.correct",), "algorithm.correct_reward", lambda c: c.reward.correct),
    Computed(("eval.temperature",), f"{ROLLOUT}.val_kwargs.do_sample", lambda c: c.eval.temperature > 0),
    Computed(
        ("model.template_arguments",),
        "data.apply_chat_template_kwargs",
        lambda c: c.model.template_arguments or {},
    ),
    Computed(("model.precision",), f"{ROLLOUT}.dtype", lambda c: precision(c, ("bfloat16", "float32"))),
    Computed(
        ("model.precision",),
        f"{ACTOR}.fsdp_config.mixed_precision",
        lambda c: {"param_dtype": precision(c, ("bf16", "fp32")), "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
    ),
    Computed(("model.positions",), f"{MODEL}.override_config", positions),
    Computed(("model.positions",), f"{ROLLOUT}.engine_kwargs.vllm", vllm_arguments),
    Computed(("seed",), f"{ROLLOUT}.seed", lambda c: c.seed),
    Computed(("seed",), f"{ACTOR}.data_loader_seed", lambda c: c.seed),
    Computed(("seed",), f"{ACTOR}.fsdp_config.seed", lambda c: c.seed),
    Computed(("reward_workers",), "reward.num_workers", lambda c: c.reward_workers or 8),
    Computed(
        ("reward", "seed", "sandbox", "model.template_arguments"),
        "reward.klear_lab",
        lambda c: {
            "settings": vars(c.reward),
            "seed": c.seed,
            "sandbox": c.sandbox,
            "template_arguments": c.model.template_arguments or {},
            "max_response_tokens": c.rl.max_response_tokens,
        },
    ),
    Computed(ROLLOUT_CARDS, f"{ROLLOUT}.nnodes", lambda c: c.engine.rollout_nodes),
    Computed(ROLLOUT_CARDS, f"{ROLLOUT}.n_gpus_per_node", lambda c: c.engine.rollout_gpus_per_node),
    Computed(
        ("engine.trainer_mode",),
        f"{ROLLOUT}.checkpoint_engine.backend",
        lambda c: "nccl" if c.engine.trainer_mode == "separate_async" else "naive",
    ),
    Computed(
        ("engine.trainer_mode", "rl.prompts_per_step", "rl.mini_batch_prompts"),
        "trainer.v1.separate_async.parameter_sync_step",
        lambda c: c.rl.prompts_per_step // c.rl.mini_batch_prompts,
    ),
)

# What every run sets in verl, whatever our config says.
FIXED = {
    f"{MODEL}.external_lib": REGISTER,
    f"{ACTOR}.strategy": "fsdp2",
    f"{ACTOR}.loss_agg_mode": "token-mean",
    f"{ACTOR}.policy_loss._target_": LOSS_CONFIG,
    f"{ACTOR}.use_kl_loss": False,
    f"{ACTOR}.entropy_coeff": 0,
    f"{ACTOR}.shuffle": False,
    f"{ACTOR}.optim.lr_scheduler_type": "constant",
    f"{ACTOR}.optim.lr_warmup_steps": 0,
    f"{ACTOR}.checkpoint.save_contents": ["model", "optimizer", "extra", "hf_model"],
    f"{ROLLOUT}.top_p": 1.0,
    f"{ROLLOUT}.top_k": -1,
    f"{ROLLOUT}.calculate_log_probs": True,
    "algorithm._target_": ALGORITHM_CONFIG,
    "algorithm.adv_estimator": ADVANTAGES,
    "algorithm.use_kl_in_reward": False,
    "algorithm.filter_groups.metric": "reward",
    "data.shuffle": False,
    "data.truncation": "error",
    "reward.reward_manager.source": "importlib",
    "reward.reward_manager.name": "KlearRewardManager",
    "reward.reward_manager.module.path": REWARDS,
    "trainer.total_epochs": 1,
    "trainer.resume_mode": "auto",
    "trainer.logger": ["console", "file"],
    "trainer.use_v1": True,
    "trainer.device": "cuda",
}

# Keys that klear_lab's own code honours, in reward.py and before rows are written.
KEPT = ("rl.phases", "reward", "data.max_prompt_tokens", "eval.every", "samples.answers")
UNUSED = (
    "rl.overlong_penalty",
    "eval.batch_sequences",
    "token_records.prompts",
    "samples.every",
    "model.lora_alpha",
)


@dataclass(frozen=True)
class Places:
    """Says where verl finds what it reads, and where it writes.

    `folder` holds all of it, `model` is a folder or a hub name, `benchmarks` the file of what is evaluated, if
    anything is, `run` the name of the run; `steps_before` counts the steps of earlier phases. Where there are none
    the model is evaluated before it trains.
    """

    folder: Path
    model: str
    benchmarks: Path | None
    run: str = ""
    steps_before: int = 0


def verl_settings(config: Config, places: Places) -> dict[str, Any]:
    """Returns what verl must be told, as nested mappings: all that differs from its own defaults."""
    flat: dict[str, Any] = dict(FIXED)
    flat |= {target: value_of(config, key) for key, target in COPIED.items()}
    flat |= {computed.target: computed.value(config) for computed in COMPUTED}
    train = str(places.folder / "train.parquet")
    flat["reward.klear_lab"]["steps_before"] = places.steps_before
    flat |= {
        f"{MODEL}.path": places.model,
        "data.train_files": train,
        "data.val_files": train if places.benchmarks is None else str(places.benchmarks),
        "data.max_prompt_length": longest_prompt(config),
        "trainer.val_before_train": places.benchmarks is not None and places.steps_before == 0,
        "trainer.test_freq": -1 if places.benchmarks is None else config.eval.every,
        "trainer.project_name": "klear_lab",
        "trainer.experiment_name": places.run,
        "trainer.default_local_dir": str(places.folder / "checkpoints"),
        "trainer.validation_data_dir": str(places.folder / "validation"),
    }
    return nested(flat)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Turns dotted keys into nested mappings."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, name = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    return tree
