"""Each key of ours becomes one of verl's, is honoured by our own code there, or is refused; without verl."""

import dataclasses

import pytest

from klear_lab.config import Config, ConfigError
from klear_lab.engines.verl import settings
from klear_lab.engines.verl.refusals import OWN_KEYS, REFUSED
from klear_lab.engines.verl.settings import COMPUTED, COPIED, KEPT, UNUSED, Places, verl_settings
from klear_lab.validation import parse

# Act before RL, or on the process that starts verl, whatever the engine.
BEFORE_RL = ("data_source", "data.", "teacher", "difficulty_filter", "correctness", "sft.", "scale", "launcher")
AROUND = (
    "logger.",
    "checkpoint.sft_every",
    "cpu_threads",
    "runs_dir",
    "cache_dir",
    "progress",
    "plan",
    "sweep_name",
    "experiment",
)
SHAPE = ("model.name", "model.path", "model.hidden_size", "model.layers", "model.heads", "model.max_positions")
OF_THE_ENGINE = ("engine.name", "engine.vllm_server", "sampler.name", "dry_run", "model.revision")


def leaves(schema, prefix=""):
    """Dotted names of all keys of a schema; a group of any keys is one."""
    hints = {f.name: f.type for f in dataclasses.fields(schema)}
    for name, hint in hints.items():
        inner = hint if isinstance(hint, type) else None
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_every_key_is_mapped_kept_refused_or_acts_elsewhere():
    computed = {key for entry in COMPUTED for key in entry.keys}
    known = {*COPIED, *computed, *KEPT, *UNUSED, *REFUSED, *SHAPE, *OF_THE_ENGINE}
    elsewhere = (*BEFORE_RL, *AROUND, *[f"{key}." for key in known])
    missing = [key for key in leaves(Config) if key not in known and not key.startswith(elsewhere)]
    assert missing == []


def test_every_key_of_the_table_is_there():
    computed = {key for entry in COMPUTED for key in entry.keys}
    keys = {*leaves(Config), "reward", "clip_method"}
    assert {*COPIED, *computed, *KEPT, *UNUSED, *REFUSED} - keys == set()


def test_every_key_of_verls_alone_is_named_as_one():
    engine = {key.removeprefix("engine.") for key in leaves(Config) if key.startswith("engine.")}
    assert {*OWN_KEYS} == engine - {"name", "vllm_server"}


def test_no_two_keys_become_the_same():
    targets = [*settings.FIXED, *COPIED.values(), *[entry.target for entry in COMPUTED]]
    assert len(targets) == len({*targets})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["rl.phases=[{ability: a}, {max_rollouts: 2, train_prompts: 6}]"],
            "rl.max_rollouts=2: engine=verl samples again",
        ),
        (["engine.sequence_parallel=3"], "engine.sequence_parallel=3: must divide"),
        (["recipe=sft_rl_long"], "eval.response_budget=2.0: engine=verl has one length"),
        (["token_records.every=1"], "token_records.every=1: engine=verl keeps no records"),
        (["samples.responses=1"], "samples.responses=1: engine=verl keeps no samples"),
        (["device=cpu"], "device=cpu: engine=verl trains on NVIDIA GPUs alone; must be auto or cuda"),
        (["model.lora_rank=4"], "model.lora_rank=4: engine=verl leaves no merged weights"),
        (["rl.steps=0"], "rl.steps=0: engine=verl trains"),
        (
            ["engine.gpus_per_node=3"],
            "rl.mini_batch_prompts=2: engine=verl shares a mini-batch of 8 responses among 3 GPUs",
        ),
        (["engine.tensor_parallel=3"], "engine.tensor_parallel=3: must divide"),
        (["rl.micro_batch_tokens=100"], "rl.micro_batch_tokens=100: engine=verl needs room .*=528"),
        (
            ["sampler=vllm", "engine.rollout=sglang"],
            "sampler=vllm: engine=verl samples with engine.rollout=sglang",
        ),
        (
            ["engine.trainer_mode=separate_async"],
            "engine.rollout_nodes=0: engine.trainer_mode=separate_async samples",
        ),
        (["engine.rollout_nodes=1"], "engine.rollout_nodes=1: only engine.trainer_mode=separate_async"),
        (["reward.no_think=1"], "reward.no_think=1.0: engine=verl tells right answers by their reward"),
        (["engine.trainer_mode=async"], "engine.trainer_mode=async: must be one of sync, colocate_async"),
        (["engine.gpus_per_node=0"], "engine.gpus_per_node=0: must be above 0"),
        (["engine.rollout=hf"], "engine.rollout=hf: must be one of vllm, sglang"),
    ],
)
def test_what_verl_cannot_honour_is_refused_by_both_names(config, overrides, words):
    with pytest.raises(ConfigError, match=words):
        config("engine=verl", *overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["engine.nodes=2"], "engine.nodes=2: only verl has it; set engine=verl"),
        (["dry_run=true"], "dry_run=true: engine=local starts no other program"),
    ],
)
def test_keys_of_verl_are_refused_by_other_engines(config, overrides, words):
    with pytest.raises(ConfigError, match=words):
        config(*overrides)


def settings_of(config, tmp_path, *overrides):
    return verl_settings(
        config("engine=verl", *overrides), Places(tmp_path, "some/model", tmp_path / "benchmarks.parquet")
    )


def test_a_later_phase_knows_the_steps_before_it_and_is_not_evaluated_again(config, tmp_path):
    for before in (0, 3):
        places = Places(tmp_path, "some/model", tmp_path / "benchmarks.parquet", steps_before=before)
        found = verl_settings(config("engine=verl"), places)
        assert found["reward"]["klear_lab"]["steps_before"] == before
        assert found["trainer"]["val_before_train"] is (before == 0)


def test_a_cluster_of_32_machines_is_described(config, tmp_path):
    sizes = "rl.prompts_per_step=256 rl.mini_batch_prompts=128 rl.responses_per_prompt=8 engine.nodes=32".split()
    found = settings_of(config, tmp_path, *sizes)
    assert (found["trainer"]["nnodes"], found["trainer"]["n_gpus_per_node"]) == (32, 8)
    assert found["actor_rollout_ref"]["actor"]["ppo_micro_batch_size_per_gpu"] == 4


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], {"rollout_is": None}),
        (["rl.mismatch_correction=tis"], {"rollout_is": "token", "rollout_is_threshold": 2.0}),
        (["rl.mismatch_correction=icepop"], {"rollout_is": "token", "rollout_is_threshold": "0.5_5.0"}),
        (
            ["rl.mismatch_correction=sequence_mask"],
            {"rollout_is": "sequence", "rollout_is_threshold": "1e-09_3.0"},
        ),
    ],
)
def test_corrections_of_mismatch_have_verls_name(config, tmp_path, overrides, expected):
    assert settings_of(config, tmp_path, *overrides)["algorithm"]["rollout_correction"] == expected


def test_a_micro_batch_is_the_largest_that_divides_a_cards_share_evenly(config, tmp_path):
    sizes = (
        "rl.prompts_per_step=6 rl.mini_batch_prompts=6 rl.responses_per_prompt=4 engine.gpus_per_node=2".split()
    )
    found = settings_of(config, tmp_path, *sizes, "rl.micro_batch_sequences=5")
    assert found["actor_rollout_ref"]["actor"]["ppo_micro_batch_size_per_gpu"] == 4


def test_dry_run_changes_no_run_id_and_an_engine_does(composed_config):
    from klear_lab.identity import run_id

    plain, dry = composed_config("engine=verl"), composed_config("engine=verl", "dry_run=true")
    assert run_id(plain) == run_id(dry) != run_id(composed_config())
    parse(dry)
