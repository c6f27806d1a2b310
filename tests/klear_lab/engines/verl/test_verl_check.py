"""The configuration that a dry run writes, as verl's own classes take it, and what they would let pass."""

import pytest
import yaml

from klear_lab.config import ConfigError

pytest.importorskip("verl.protocol", reason="verl has an environment of its own: make test-verl")

from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, POLICY_LOSS_REGISTRY
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.engine_workers import ActorRolloutRefWorker

from klear_lab.engines.verl import files
from klear_lab.engines.verl.check import check_config
from klear_lab.engines.verl.policy_loss import KlearLossConfig
from klear_lab.engines.verl.worker import KlearTrainingWorker
from klear_lab.rl.clip_methods import CLIP_METHODS
from support.verl_cpu import compose_config

pytestmark = pytest.mark.verl


@pytest.fixture
def written(dry_run, monkeypatch):
    """A function from overrides to the folder of a dry run, before verl is asked."""
    monkeypatch.setattr(files, "check_with_verl", lambda place: None)
    return dry_run


def test_every_clip_method_is_registered_with_the_estimator_and_the_worker():
    assert {f"klear_{name}" for name, own in CLIP_METHODS.items() if own.statistics is None} <= {
        *POLICY_LOSS_REGISTRY
    }
    assert "klear_lab" in ADV_ESTIMATOR_REGISTRY
    assert ActorRolloutRefWorker.actor_worker_cls is KlearTrainingWorker


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [
            "clip_method=ce_gppo",
            "rl.mismatch_correction=icepop",
            "model.precision=float32",
            "optimizer=adamw_8bit",
        ],
        ["engine.trainer_mode=colocate_async", "engine.rollout=sglang", "rl.micro_batch_tokens=600"],
        ["engine.trainer_mode=separate_async", "engine.rollout_nodes=1", "engine.refill_groups=true"],
        ["rl.mini_batch_prompts=4", "rl.responses_per_prompt=64", "engine.nodes=32", "engine.gpus_per_node=8"],
    ],
    ids=["plain", "corrected", "colocated", "separate", "32 machines"],
)
def test_verl_accepts_what_is_written(written, overrides):
    whole = yaml.safe_load(check_config(written(*overrides)))
    assert whole["actor_rollout_ref"]["model"]["external_lib"] == "klear_lab.engines.verl.register"
    assert "critic" in whole


def test_a_loss_gets_its_methods_parameters(written):
    config = compose_config(written("clip_method=ce_gppo", "clip_method.dual_clip=10"))
    loss = omega_conf_to_dataclass(config.actor_rollout_ref.actor).policy_loss
    assert isinstance(loss, KlearLossConfig) and loss.loss_mode == "klear_ce_gppo"
    assert loss.parameters["beta1"] == 0.75 and loss.parameters["dual_clip"] == 10


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("actor_rollout_ref.actor.policy_loss.loss_mode", "klear_gpo", "loss_mode=klear_gpo: must be one of"),
        ("algorithm.adv_estimator", "klear", "adv_estimator=klear: must be one of"),
        ("actor_rollout_ref.rollout.name", "vlm", "rollout.name=vlm: must be one of sglang, vllm"),
        ("actor_rollout_ref.model.path", "/nowhere", "model.path=/nowhere: there is no model"),
        ("trainer.v1.trainer_mode", "asynchronous", "trainer_mode=asynchronous: must be one of"),
        ("trainer.save_frequency", 3, "trainer.save_frequency: verl has no such key"),
        ("actor_rollout_ref.actor.policy_loss.epsilon", 3, "epsilon"),
        ("actor_rollout_ref.actor.loss_agg_mode", "mean", "Invalid loss_agg_mode"),
        ("data.train_batch_size", 1, "train_batch_size"),
    ],
)
def test_what_verl_would_let_pass_or_refuse_is_named(written, path, value, words):
    place = written()
    content = yaml.safe_load((place / "config.yaml").read_text())
    *parents, name = path.split(".")
    node = content
    for parent in parents:
        node = node[parent]
    node[name] = value
    (place / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=words):
        check_config(place)


def test_a_dry_run_asks_verl_in_a_process_of_its_own(dry_run, monkeypatch):
    monkeypatch.delenv("VERL_PLATFORM")  # only this process has the tests' own
    assert "klear_gppo" in (dry_run() / "complete.yaml").read_text()
