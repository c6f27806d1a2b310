"""The decoding step without modules: the model's own bits, and only for models that are known to be alike."""

import pytest
import torch
import transformers
from torch import nn

from klear_lab.config import ModelConfig
from klear_lab.policy.model import build_tiny
from klear_lab.sampling.cache import SlotCache
from klear_lab.sampling.one_token import by_the_model, is_known, step_of
from klear_lab.sampling.transformers import flush_right, read_prompts

SIZES = dict(vocab_size=107, pad_token_id=0, eos_token_id=1, bos_token_id=None, initializer_range=0.2)
SIZES |= dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, max_position_embeddings=64)
HEADS = dict(num_attention_heads=4, num_key_value_heads=2)
SCALED = dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
KNOWN = {
    "qwen3": transformers.Qwen3Config(**SIZES, **HEADS, head_dim=16),
    "qwen3, tied, all heads with keys": transformers.Qwen3Config(
        **SIZES, num_attention_heads=4, num_key_value_heads=4, head_dim=8, tie_word_embeddings=True
    ),
    "qwen3, with biases": transformers.Qwen3Config(**SIZES, **HEADS, head_dim=8, attention_bias=True),
    "qwen2": transformers.Qwen2Config(**SIZES, **HEADS),
    "llama": transformers.LlamaConfig(**SIZES, **HEADS),
    "llama, with biases and scaled positions": transformers.LlamaConfig(
        **SIZES,
        **HEADS,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=SCALED | dict(original_max_position_embeddings=16),
    ),
}
UNKNOWN = {
    "a window": transformers.Qwen2Config(
        **SIZES, **HEADS, sliding_window=7, use_sliding_window=True, max_window_layers=1
    ),
    "another family": transformers.MistralConfig(**SIZES, **HEADS),
}


def made(config, **options):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, **options)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:  # norms start at 1 and biases at 0, where they would hide
            nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    return model.eval()


@torch.no_grad()
def both_ways(model, rows, dtype=None):
    """Logits of six steps by each of the two, after prompts of unequal length."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(2, 107, (3 + row % 7,), generator=generator).tolist() for row in range(rows)]
    found = []
    for step in (by_the_model(model), step_of(model)):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            input_ids_BT, mask_BT = flush_right(prompts, 0, torch.device("cpu"))
            read, logits_BV = read_prompts(model, input_ids_BT, mask_BT)
            cache = SlotCache(rows, dtype)
            cache.clear(rows)
            cache.admit(read, [*map(len, prompts)], [*range(rows)], 6)
            for number in range(6):
                logits_BV = step(logits_BV.argmax(-1), mask_BT.sum(1) + number, cache)
                cache.advance()
                found.append(logits_BV)
    return found[:6], found[6:]


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("name", KNOWN)
def test_logits_are_the_models_bit_for_bit(name, rows, dtype):
    model = made(KNOWN[name])
    assert is_known(model)
    theirs, ours = both_ways(model, rows, dtype)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    assert not torch.equal(ours[0], ours[1])


def test_the_tiny_model_is_known():
    assert is_known(build_tiny(ModelConfig(name="tiny", path=None), torch.device("cpu"), 0).model)


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_model_that_computes_other_things_does_its_own_step(name):
    model = made(UNKNOWN[name])
    assert not is_known(model)
    theirs, ours = both_ways(model, 3)
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def another_linear(model):
    layer = model.model.layers[1].mlp
    layer.up_proj = Doubled(32, 48, bias=False)


def another_norm(model):
    model.model.norm = nn.LayerNorm(32)


def a_hook(model):
    model.model.layers[0].self_attn.register_forward_hook(lambda module, given, output: None)


def a_hook_before(model):
    model.model.layers[2].register_forward_pre_hook(lambda module, given: None)


def a_forward_of_its_own(model):
    mlp = model.model.layers[0].mlp
    mlp.forward = lambda x, old=mlp.forward: 0 * old(x)


class NoMLP(nn.Module):
    def __init__(self, old):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = old.gate_proj, old.up_proj, old.down_proj
        self.act_fn = old.act_fn

    def forward(self, x):
        return 0 * x


def an_mlp_of_its_own(model):
    model.model.layers[0].mlp = NoMLP(model.model.layers[0].mlp)


@pytest.mark.parametrize(
    "change",
    [an_mlp_of_its_own, another_linear, another_norm, a_hook, a_hook_before, a_forward_of_its_own],
    ids=lambda f: f.__name__,
)
def test_a_model_that_somebody_changed_does_its_own_step(change):
    model = made(KNOWN["qwen3"])
    change(model)
    assert not is_known(model)
    theirs, ours = both_ways(model, 3)
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


def test_other_attention_does_its_own_step():
    assert not is_known(made(KNOWN["qwen3"], attn_implementation="eager"))


def test_an_adapter_does_its_own_step():
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(made(KNOWN["qwen3"]), LoraConfig(target_modules="all-linear"))
    assert not is_known(adapted) and not is_known(adapted.get_base_model())
