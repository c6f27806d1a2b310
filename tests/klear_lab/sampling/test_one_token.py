"""The decoding step without modules: the model's own bits or nearly, and only for models that are known to be alike."""

import pytest
import torch
import transformers
from torch import nn

from klear_lab.config import ModelConfig
from klear_lab.policy.dense import is_known
from klear_lab.policy.model import build_tiny
from klear_lab.sampling.cache import SlotCache
from klear_lab.sampling.one_token import by_the_model, step_of, without_modules
from klear_lab.sampling.transformers import flush_right, read_prompts
from support.dense_models import HEADS, KNOWN, SIZES, made

UNKNOWN = {
    "a window": transformers.Qwen2Config(
        **SIZES, **HEADS, sliding_window=7, use_sliding_window=True, max_window_layers=1
    ),
    "another family": transformers.MistralConfig(**SIZES, **HEADS),
}


@torch.no_grad()
def both_ways(model, rows, dtype=None, own=step_of):
    """Logits of six steps by the model and by `own`, after prompts of unequal length."""
    generator = torch.Generator().manual_seed(1)
    prompts = [torch.randint(2, 107, (3 + row % 7,), generator=generator).tolist() for row in range(rows)]
    found = []
    for way in (by_the_model, own):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            step = way(model)
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
    theirs, ours = both_ways(model, rows, dtype, without_modules)
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    assert not torch.equal(ours[0], ours[1])


@pytest.mark.parametrize("rows", [1, 33])
@pytest.mark.parametrize("name", KNOWN)
def test_joined_weights_give_the_models_logits_but_for_rounding(name, rows):
    model = made(KNOWN[name])
    theirs, ours = both_ways(model, rows)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_small_model_in_float32_is_read_with_joined_weights_and_others_with_their_own(monkeypatch):
    model = made(KNOWN["qwen3"])
    theirs, ours = both_ways(model, 5)
    assert not all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    monkeypatch.setattr("klear_lab.sampling.joined.SMALL", model.num_parameters() - 1)
    for theirs, ours in (both_ways(model, 5), both_ways(model, 5, torch.bfloat16)):
        assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))


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
