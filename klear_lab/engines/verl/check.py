"""Checks a configuration with verl's own classes, and what they let pass: unknown names, keys that nothing reads.

    python -m klear_lab.engines.verl.check FOLDER      # reads config.yaml there, writes complete.yaml

A process of its own, since Hydra is busy with klear_lab's configuration in a run's.
"""

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from verl.trainer.config.algorithm import AlgoConfig
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl.utils.import_utils import load_extern_object

import klear_lab.engines.verl.register  # noqa: F401 - what it registers is looked up below
from klear_lab.config import ConfigError
from klear_lab.engines.verl.advantages import KlearAlgorithmConfig

RL = "ppo_trainer"
REFUSED = "verl refuses"  # how a line about a problem begins
NOT_YET = ("start", "huggingface")  # the model after SFT, and the weights of the phase before
ROLLOUTS = ("vllm", "sglang")
# Keys that our own classes in verl read, and one that is null in verl's own configuration.
ADDED = (
    *("actor_rollout_ref.actor.policy_loss.", "reward.klear_lab"),
    *(f"algorithm.{f.name}" for f in fields(KlearAlgorithmConfig) if f.name not in AlgoConfig.__annotations__),
    *(
        "actor_rollout_ref.actor.fsdp_config.mixed_precision",
        "engine.mixed_precision",
        "data.apply_chat_template_kwargs.",
    ),
)


def check_config(folder: Path) -> str:
    """Composes folder/config.yaml as verl would, and returns the whole configuration as YAML.

    Raises `ConfigError` where verl's classes refuse it, or it names what verl doesn't have.
    """
    trainer = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["defaults"][0]
    with initialize_config_module("verl.trainer.config", version_base=None):
        own = compose(trainer)
    with initialize_config_dir(str(folder), version_base=None):
        config = compose("config")
    find = problems_of_rl if trainer == RL else problems_of_sft
    try:
        problems = [*find(config, own)]
    except (AssertionError, ValueError, TypeError, OmegaConfBaseException, HydraException) as error:
        problems = [" ".join(str(error).split())]
    if problems:
        raise ConfigError("\n".join(f"{REFUSED} {folder / 'config.yaml'}: {problem}" for problem in problems))
    return OmegaConf.to_yaml(config, resolve=False)


def problems_of_sft(config: DictConfig, own: DictConfig) -> Iterator[str]:
    """Yields what is wrong with a configuration of verl's SFT trainer, or raises what its classes raise."""
    yield from unread(config, own, "")
    load_extern_object(config.data.custom_cls.path, config.data.custom_cls.name)
    for part in (config.engine, config.optim, config.checkpoint, config.profiler):
        omega_conf_to_dataclass(part)
    yield from missing_folder("model.path", str(config.model.path))


def problems_of_rl(config: DictConfig, own: DictConfig) -> Iterator[str]:
    """Yields what is wrong with a configuration of verl's RL trainer, or raises what its classes raise."""
    named = [*unknown_names(config), *unread(config, own, "")]
    yield from named
    if named:
        return
    validate_config(
        config=config, use_reference_policy=need_reference_policy(config), use_critic=need_critic(config)
    )
    for part in (config.actor_rollout_ref.rollout, config.algorithm):
        omega_conf_to_dataclass(part)
    if Path(config.actor_rollout_ref.model.path).is_dir():
        omega_conf_to_dataclass(config.actor_rollout_ref.model)


def unknown_names(config: DictConfig) -> Iterator[str]:
    """Yields a line for each name that verl would look for in vain, and only when it trains."""
    named = {
        "actor_rollout_ref.actor.policy_loss.loss_mode": POLICY_LOSS_REGISTRY,
        "algorithm.adv_estimator": ADV_ESTIMATOR_REGISTRY,
        "actor_rollout_ref.rollout.name": ROLLOUTS,
        "trainer.v1.trainer_mode": TRAINER_REGISTRY,
    }
    for key, known in named.items():
        value = OmegaConf.select(config, key)
        if value not in known:
            yield f"{key}={value}: must be one of {', '.join(sorted(known))}"
    yield from missing_folder("actor_rollout_ref.model.path", str(config.actor_rollout_ref.model.path))


def missing_folder(key: str, path: str) -> Iterator[str]:
    """Yields a line for a path where there is no model, and none is to come."""
    is_path, is_there = path.startswith(("/", ".", "~")), (Path(path) / "config.json").is_file()
    if is_path and Path(path).name not in NOT_YET and not is_there:
        yield f"{key}={path}: there is no model"


def unread(config: DictConfig, own: DictConfig, prefix: str) -> Iterator[str]:
    """Yields a line for each key that verl's own configuration doesn't have and none of our classes reads."""
    for key in config.keys():  # noqa: SIM118 - a key whose value is still missing isn't "in" a config
        name = f"{prefix}{key!s}"
        if name.startswith(ADDED):
            continue
        if key not in own.keys():  # noqa: SIM118
            yield f"{name}: verl has no such key"
            continue
        value, known = config._get_node(key), own._get_node(key)
        if isinstance(value, DictConfig) and isinstance(known, DictConfig) and known._content:
            yield from unread(value, known, f"{name}.")  # verl takes anything in an empty mapping


def main(folder: Path) -> None:
    """Checks a folder's configuration; exits with lines about its problems."""
    try:
        (folder / "complete.yaml").write_text(check_config(folder), encoding="utf-8")
    except ConfigError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
