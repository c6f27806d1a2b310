"""Adapters: they train alone, start from the model as it is, and are merged wherever weights leave the learner."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.policy.log_probs import response_log_probs
from klear_lab.policy.lora import add_adapters
from klear_lab.policy.model import load_policy, load_pretrained
from klear_lab.policy.training_state import apply_gradient, load_checkpoint, save_checkpoint, start_state
from klear_lab.sft import Example, backward
from support.architectures import EXPERTS, SOUND, USUAL, save_folder, tiny_model

BATCH = [Example([5, 6, 7], [8, 9, 10, 1]), Example([11], [12, 1])]
SHARED_EXPERTS = {**USUAL, **EXPERTS, "shared_expert_intermediate_size": 16}
CPU = torch.device("cpu")


def tiny(**settings):
    return load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2, heads=2, **settings), CPU, 0)


def trained(policy, steps=3, optimizer="adamw"):
    state = start_state(policy, learning_rate=0.05, adam_betas=[0.9, 0.98], weight_decay=0.0, optimizer=optimizer)
    for _ in range(steps):
        backward(policy, BATCH, 8)
        apply_gradient(state, "sft", 0.05, 1.0)
    return state


def log_probs(policy):
    with torch.no_grad():
        return response_log_probs(policy, BATCH)[0]


def test_an_adapter_starts_from_the_model_as_it_is_and_trains_alone():
    plain, adapted = tiny(), tiny(lora_rank=4)
    torch.testing.assert_close(log_probs(plain), log_probs(adapted))  # which read packed, and by modules
    before = dict(plain.weights())
    state = trained(adapted)
    in_optimizer = sum(p.numel() for group in state.optimizer.param_groups for p in group["params"])
    assert in_optimizer < 0.5 * sum(w.numel() for w in before.values())
    after = dict(adapted.weights())
    assert after.keys() == before.keys()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed and all("_proj" in name for name in changed)


def test_a_saved_folder_is_a_plain_model_with_the_adapter_merged(tmp_path):
    policy = tiny(lora_rank=4, lora_alpha=8)
    trained(policy)
    policy.save(tmp_path / "model")
    again = load_pretrained(tmp_path / "model", ModelConfig(name="tiny"), CPU)
    torch.testing.assert_close(log_probs(again), log_probs(policy), rtol=1e-5, atol=1e-6)
    names = {name for name, _ in AutoModelForCausalLM.from_pretrained(tmp_path / "model").named_parameters()}
    assert not any("lora" in name or "base_layer" in name for name in names)


# Most experts of three are one tensor; gpt2 has weights that lie the other way round, falcon a linear layer of its own.
@pytest.mark.parametrize("kind", ["qwen3_moe", "mixtral", "qwen2_moe", "gpt2", "falcon"])
def test_any_architecture_with_adapters_is_saved_whole(tmp_path, kind):
    sizes = SHARED_EXPERTS if kind == "qwen2_moe" else SOUND[kind]
    path = str(save_folder(tmp_path / "before", kind, **sizes))
    policy = load_policy(ModelConfig(name="path", path=path, lora_rank=4), CPU, 0)
    experts = {name: weight for name, weight in policy.weights() if ".experts." in name}
    trained(policy)
    policy.save(tmp_path / "after")
    again = load_pretrained(tmp_path / "after", ModelConfig(name="path"), CPU)
    torch.testing.assert_close(log_probs(again), log_probs(policy), rtol=1e-4, atol=1e-5)
    after = dict(policy.weights())
    assert all(torch.equal(after[name], weight) for name, weight in experts.items())


def test_adapters_that_a_model_cannot_run_with_are_refused(tmp_path):
    path = str(save_folder(tmp_path, "phimoe"))  # its router is a linear layer that returns two tensors
    with pytest.raises(ConfigError, match="model.lora_rank=4: with adapters, it can't be run .* set it to null"):
        load_policy(ModelConfig(name="path", path=path, lora_rank=4), CPU, 0)


def test_adapters_that_cannot_be_merged_into_the_weights_as_they_were_are_refused():
    model = tiny_model("llama", **USUAL)
    model.model.base_layer = torch.nn.LayerNorm(4)  # the name that peft gives to what it wraps
    with pytest.raises(
        ConfigError, match="model.lora_rank=4: adapters can't be merged into model.base_layer.bias"
    ):
        add_adapters(model, 4, 8)


def test_a_model_without_a_linear_layer_gets_no_adapters():
    model = tiny_model("llama", **{**USUAL, "num_hidden_layers": 0})
    with pytest.raises(ConfigError, match="model.lora_rank=4: the model has no linear layer but its output head"):
        add_adapters(model, 4, 8)


@pytest.mark.parametrize("settings", [{"lora_rank": 2}, {}])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_training_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, settings, optimizer):
    straight = trained(tiny(**settings), steps=4, optimizer=optimizer)
    half = trained(tiny(**settings), steps=2, optimizer=optimizer)
    save_checkpoint(half, tmp_path / "checkpoint.pt")
    resumed = trained(tiny(**settings), steps=0, optimizer=optimizer)
    load_checkpoint(resumed, tmp_path / "checkpoint.pt")
    for _ in range(2):
        backward(resumed.policy, BATCH, 8)
        apply_gradient(resumed, "sft", 0.05, 1.0)
    pairs = zip(straight.policy.weights(), resumed.policy.weights(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)


def test_states_of_8_bits_take_two_bytes_a_parameter():
    policy = load_policy(ModelConfig(name="tiny", hidden_size=128, layers=2, heads=2), CPU, 0)
    state = trained(policy, steps=1, optimizer="adamw_8bit")
    large = [p for p in policy.model.parameters() if p.numel() >= 4096]
    stored = [t for p in large for t in state.optimizer.state[p].values() if isinstance(t, torch.Tensor)]
    count = sum(p.numel() for p in large)
    shared = {t.data_ptr(): t.numel() * t.element_size() for t in stored}  # the two tables of levels are shared
    assert 2 * count <= sum(shared.values()) <= 2.2 * count
    assert state.updates == 1
