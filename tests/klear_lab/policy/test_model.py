"""Policies: the character tokenizer, folders written by save_pretrained, chat templates, stop tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.policy.model import CHARACTERS, character_tokenizer, load_policy, load_pretrained
from klear_lab.policy.output_head import output_head
from support.models import CHATML, save_model

CPU = torch.device("cpu")


@given(st.text(CHARACTERS, max_size=30).filter(lambda text: "think>" not in text))
def test_every_character_is_a_token_and_comes_back(text):
    tokenizer = character_tokenizer()
    ids = tokenizer.encode(f"<think>{text}</think>", add_special_tokens=False)
    assert len(ids) == len(text) + 2
    assert tokenizer.decode(ids) == f"<think>{text}</think>"


def test_a_saved_policy_comes_back_equal(policy, tmp_path):
    policy.model.float()
    policy.save(tmp_path)
    again = load_pretrained(tmp_path, ModelConfig(name="path"), CPU)
    for (name, a), (_, b) in zip(policy.model.state_dict().items(), again.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    messages = [{"role": "user", "content": "7+5="}]
    assert again.codec.encode_prompt(messages) == policy.codec.encode_prompt(messages)
    assert again.stop_token_ids == policy.stop_token_ids == [1]


def test_a_folder_model_uses_its_chat_template_and_both_stop_tokens(tmp_path):
    policy = load_pretrained(save_model(tmp_path), ModelConfig(name="path"), CPU)
    messages = [{"role": "user", "content": "7+5="}]
    prompt = policy.codec.encode_prompt(messages)
    assert policy.codec.tokenizer.decode(prompt) == "<|im_start|>user\n7+5=<|im_end|>\n<|im_start|>assistant\n"
    end_of_text, end_of_turn = 0, policy.codec.tokenizer.eos_token_id
    assert policy.stop_token_ids == sorted([end_of_text, end_of_turn])
    assert policy.pad_token_id in policy.stop_token_ids
    response = policy.codec.encode_response(messages, "<think>7+5=2</think>2")
    assert response[-1] == end_of_turn
    assert policy.codec.decode_response(messages, response) == "<think>7+5=2</think>2"


def test_a_template_that_opens_the_thought_gets_no_second_one(tmp_path):
    template = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    policy = load_pretrained(save_model(tmp_path, template), ModelConfig(name="path"), CPU)
    messages = [{"role": "user", "content": "7+5="}]
    response = policy.codec.encode_response(messages, "<think>7+5=2</think>2")
    assert policy.codec.tokenizer.decode(response) == "7+5=2</think>2<|im_end|>"
    assert policy.codec.decode_response(messages, response) == "<think>7+5=2</think>2"


def test_weights_in_bfloat16_are_trained_in_float32(tmp_path):
    folder = save_model(tmp_path)
    GPT2LMHeadModel.from_pretrained(folder).bfloat16().save_pretrained(folder)
    policy = load_pretrained(folder, ModelConfig(name="path"), CPU)
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}


def test_bfloat16_runs_matrix_products_in_it_and_keeps_log_probs_in_float32(policy):
    from klear_lab.policy.log_probs import response_log_probs
    from klear_lab.sft import Example

    half = load_policy(ModelConfig(name="tiny", precision="bfloat16"), CPU, seed=0)
    full = load_policy(ModelConfig(name="tiny", precision="float32"), CPU, seed=0)
    example = [Example([5, 6], [7, 8, 9])]
    a, b = response_log_probs(half, example)[0], response_log_probs(full, example)[0]
    assert a.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("source", ["scratch", "folder"])
def test_gradient_checkpointing_recomputes_layers_and_keeps_gradients(tmp_path, source):
    from klear_lab.sft import Example, backward

    grads, forwards = [], []
    load_policy(ModelConfig(name="tiny"), CPU, seed=0).save(tmp_path)
    for checkpointing in (False, True):
        config = ModelConfig(name="tiny", gradient_checkpointing=checkpointing)
        policy = (
            load_policy(config, CPU, seed=0) if source == "scratch" else load_pretrained(tmp_path, config, CPU)
        )
        output_head(policy.model)  # finding it runs the model once
        calls = []
        policy.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        backward(policy, [Example([5, 6], [7, 8, 9])], 1)
        grads.append(torch.cat([p.grad.flatten() for p in policy.model.parameters()]))
        forwards.append(len(calls))
    torch.testing.assert_close(grads[0], grads[1])
    assert forwards == [1, 2]


def test_dropout_is_silent(tmp_path):
    from klear_lab.policy.log_probs import response_log_probs
    from klear_lab.sft import Example

    policy = load_pretrained(save_model(tmp_path), ModelConfig(name="path"), CPU)
    assert policy.model.training and policy.model.config.resid_pdrop > 0
    first, second = (response_log_probs(policy, [Example([5, 6], [7, 8, 9])])[0] for _ in range(2))
    assert torch.equal(first, second)


def test_a_folder_without_a_model_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=f"model.path={tmp_path}: not a model folder"):
        load_pretrained(tmp_path, ModelConfig(name="path"), CPU)


def test_a_tokenizer_without_a_template_is_an_error(tmp_path):
    folder = save_model(tmp_path)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="its tokenizer has no chat template"):
        load_pretrained(folder, ModelConfig(name="path"), CPU)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_policy_learns_in_bfloat16():
    from klear_lab.config import SFTConfig
    from klear_lab.policy.training_state import start_state
    from klear_lab.sft import train_step
    from support.tokens import examples_of

    policy = load_policy(ModelConfig(name="tiny"), torch.device("cuda"), seed=0)
    assert policy.autocast_dtype == torch.bfloat16
    c = SFTConfig(20, 3e-3, 0, 4, 4, 1.0, 0, 0.0, max_tokens=64)
    state = start_state(policy, learning_rate=3e-3, adam_betas=[0.9, 0.98], weight_decay=0.0)
    row = {"prompt": [{"role": "user", "content": "01"}], "response": "234"}
    examples = examples_of(policy.codec, [row] * 4, 64)
    losses = [train_step(state, examples, c)["loss/sft"] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
