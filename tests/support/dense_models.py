"""Small random models of the families whose forward passes are known, with weights under which nothing hides."""

import copy

import torch
import transformers
from torch import nn

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
    "qwen2, with positions scaled so that attention is": transformers.Qwen2Config(
        **SIZES,
        **HEADS,
        rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16),
    ),
    "llama": transformers.LlamaConfig(**SIZES, **HEADS),
    "llama, with biases and scaled positions": transformers.LlamaConfig(
        **SIZES,
        **HEADS,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=SCALED | dict(original_max_position_embeddings=16),
    ),
}


def made(config, **options):
    """A model of the config, which options such as its attention don't change."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config), **options)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:  # norms start at 1 and biases at 0, where they would hide
            nn.init.normal_(weight, mean=float("norm" in name), std=0.3)
    return model.eval()
