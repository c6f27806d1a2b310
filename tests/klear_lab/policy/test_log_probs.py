"""Log-probabilities of the models that people load, against those from each model's own logits."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
import transformers

from klear_lab.policy.log_probs import response_log_probs, right_pad
from klear_lab.policy.model import Policy
from klear_lab.policy.output_head import output_head
from klear_lab.sft import Example
from support.memory import Memory

SMALL = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SMALL |= {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {"head_dim": 8}
MODELS = {
    "qwen3, tied": ("Qwen3", {**HEADS, "tie_word_embeddings": True}, (1.0, None)),
    "llama, untied": ("Llama", {"tie_word_embeddings": False}, (1.0, None)),
    "gemma2, capped": ("Gemma2", {**HEADS, "final_logit_softcapping": 3.0}, (1.0, 3.0)),
    "cohere, scaled": ("Cohere", {"logit_scale": 0.25}, (0.25, None)),
    "granite, scaled": ("Granite", {"logits_scaling": 8.0}, (0.125, None)),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4}, (1.0, None)),
    "phi, bias": ("Phi", {}, (1.0, None)),
    "opt, projected": ("OPT", {"ffn_dim": 48, "word_embed_proj_dim": 16, "dropout": 0.0}, (1.0, None)),
    "qwen3-moe": (
        "Qwen3Moe",
        {**HEADS, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
        (1.0, None),
    ),
}
EXAMPLES = [
    Example([5, 6, 7], [8, 9, 10, 11, 2]),
    Example([12], [13, 2]),
    Example([3, 4, 5, 6, 7, 8], [9, 10, 2]),
]


def build(name, **changes):
    """A random model whose logits are large, so that a cap or a scale can't go unnoticed."""
    family, own, _ = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SMALL, "initializer_range": 0.3, **own, **changes})
    head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    model = getattr(transformers, f"{family}{head}")(config)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if (bias := model.get_output_embeddings().bias) is not None:
        torch.nn.init.normal_(bias)
    return model


def policy_of(model, autocast=None):
    return Policy(model, SimpleNamespace(pad_token_id=0), torch.device("cpu"), autocast)


def from_own_logits(policy, examples, temperature):
    """All logits at once, as the model makes them but for the head's product, which is in float32."""
    linear = policy.model.get_output_embeddings()

    def in_float32(hidden_BTH):
        with torch.autocast("cpu", enabled=False):
            return torch.nn.functional.linear(hidden_BTH.to(linear.weight.dtype), linear.weight, linear.bias)

    linear.forward = in_float32
    input_ids_BT, predicts_BT = right_pad(examples, 0)
    with policy.autocast():
        logits_NV = policy.model(input_ids=input_ids_BT, use_cache=False).logits[predicts_BT]
    del linear.forward
    distribution = torch.distributions.Categorical(logits=logits_NV / temperature)
    target_N = torch.tensor([token for e in examples for token in e.response_ids])
    return distribution.log_prob(target_N), distribution.entropy()


def gradient_of(model, log_prob_N):
    model.zero_grad()
    (log_prob_N * torch.linspace(-1, 2, len(log_prob_N))).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(policy, examples, temperature, tolerance):
    log_prob_N, entropy_N = response_log_probs(policy, examples, temperature)
    expected_N, expected_entropy_N = from_own_logits(policy, examples, temperature)
    torch.testing.assert_close(log_prob_N, expected_N, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy_N, expected_entropy_N.detach(), rtol=1e-5, atol=1e-5)
    assert log_prob_N.dtype == entropy_N.dtype == expected_N.dtype and not entropy_N.requires_grad
    got, expected = gradient_of(policy.model, log_prob_N), gradient_of(policy.model, expected_N)
    assert got.keys() == expected.keys()
    assert policy.model.get_input_embeddings().weight.grad.norm() > 1e-3
    for name in got:
        assert (got[name] - expected[name]).norm() <= tolerance * expected[name].norm() + 1e-5, name


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("name", MODELS)
def test_they_are_those_of_the_models_own_logits(name, temperature):
    model = build(name)
    assert_same(policy_of(model), EXAMPLES, temperature, 1e-5)
    head = output_head(model)
    assert (head.scale, head.cap) == MODELS[name][2]


@pytest.mark.parametrize("name", MODELS)
def test_under_autocast_only_the_body_is_in_bfloat16(name):
    assert_same(policy_of(build(name), torch.bfloat16), EXAMPLES, 1.3, 0.02)


@pytest.mark.parametrize("name", ["qwen3, tied", "gemma2, capped", "gpt2"])
def test_gradient_checkpointing_changes_nothing(name):
    model = build(name)
    plain = copy.deepcopy(model)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    gradients = [gradient_of(m, response_log_probs(policy_of(m), EXAMPLES)[0]) for m in (model, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_reaches_a_tied_embedding_through_both_of_its_uses(tied):
    model = build("llama, untied", tie_word_embeddings=tied)
    gradient = gradient_of(model, response_log_probs(policy_of(model), EXAMPLES)[0])
    never_read = gradient["model.embed_tokens.weight"][40]  # a token of no example: only the head has it
    assert ("lm_head.weight" in gradient) != tied
    assert (never_read.norm() > 0) == tied


def test_a_cap_is_found_where_all_logits_are_small():
    model = build("gemma2, capped", initializer_range=1e-3, final_logit_softcapping=30.0)
    assert output_head(model).cap == 30.0


class Shifted(transformers.Qwen3ForCausalLM):
    """Changes logits in a way that nothing knows."""

    def forward(self, *arguments, **keywords):
        output = super().forward(*arguments, **keywords)
        output.logits = output.logits + torch.linspace(0, 1, self.config.vocab_size)
        return output


class Doubled(torch.nn.Linear):
    """A head that isn't a plain linear layer."""

    def forward(self, hidden):
        return 2 * super().forward(hidden)


def doubled():
    model = build("llama, untied")
    model.lm_head.__class__ = Doubled
    return model


def shifted():
    return Shifted(build("qwen3, tied").config)


@pytest.mark.parametrize("build_odd", [shifted, doubled])
def test_a_head_that_nothing_knows_is_left_to_the_model_with_one_line_in_the_log(build_odd, caplog):
    model = build_odd()
    policy = policy_of(model)
    with caplog.at_level(logging.WARNING):
        (log_prob_N, entropy_N), _ = (response_log_probs(policy, EXAMPLES, 0.7) for _ in range(2))
    assert len(caplog.records) == 1 and type(model).__name__ in caplog.text
    input_ids_BT, predicts_BT = right_pad(EXAMPLES, 0)
    distribution = torch.distributions.Categorical(logits=model(input_ids_BT).logits[predicts_BT] / 0.7)
    target_N = torch.tensor([token for e in EXAMPLES for token in e.response_ids])
    torch.testing.assert_close(log_prob_N, distribution.log_prob(target_N))
    torch.testing.assert_close(entropy_N, distribution.entropy().detach())
    assert log_prob_N.requires_grad and not entropy_N.requires_grad


def test_an_error_in_the_forward_pass_leaves_the_head_as_it_was():
    policy = policy_of(build("llama, untied"))
    expected, _ = response_log_probs(policy, EXAMPLES)
    with pytest.raises(IndexError):
        response_log_probs(policy, [Example([5], [10_000, 3])])
    assert "forward" not in vars(policy.model.lm_head)
    assert torch.equal(expected, response_log_probs(policy, EXAMPLES)[0])


def test_no_tensor_ever_holds_all_logits():
    vocabulary = 20_000
    policy = policy_of(build("llama, untied", vocab_size=vocabulary, max_position_embeddings=1024))
    example = Example([5, 6], [7] * 600)
    response_log_probs(policy, [Example([5], [7])])
    with Memory() as memory:
        log_prob_N, _ = response_log_probs(policy, [example])
        log_prob_N.sum().backward()
    assert memory.largest < 600 * vocabulary / 4
