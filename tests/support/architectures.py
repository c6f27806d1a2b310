"""Model folders in miniature, of many architectures, with the character tokenizer, as `save_pretrained` writes them."""

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from klear_lab.policy.model import character_tokenizer

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
USUAL = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 128}
HEADS = {**USUAL, "head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}

# Trainable, some of them with dropout or noise that isn't an nn.Dropout.
SOUND = {
    "qwen3": HEADS,
    "qwen2": {**USUAL, "attention_dropout": 0.1},
    "llama": USUAL,
    "gemma": HEADS,
    "gemma3_text": {**HEADS, "sliding_window": 6},
    "mistral": {**USUAL, "sliding_window": 6},
    "phi": {**USUAL, "resid_pdrop": 0.1},
    "gpt2": GPT,
    "qwen3_moe": {**HEADS, **EXPERTS},
    "seed_oss": {**HEADS, "residual_dropout": 0.1, "attention_dropout": 0.1},
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 128, "layerdrop": 0.3},
    "gpt_bigcode": GPT,
    "phimoe": {**USUAL, **LOCAL_EXPERTS, "router_jitter_noise": 0.01, "input_jitter_noise": 0.01},
    "mixtral": {**USUAL, **LOCAL_EXPERTS, "router_jitter_noise": 0.01},
    "falcon": {**USUAL, "attention_dropout": 0.1, "hidden_dropout": 0.1},  # reads its config in each forward pass
    "gptj": {**GPT, "rotary_dim": 4, "attn_pdrop": 0.1},
}
NOT_CAUSAL = "the logits of a token change with tokens behind it"
OTHER_LAYERS = "has layers of {}, so its past is not one key and value a token, as the sampler keeps it"
LINEAR_LAYERS = OTHER_LAYERS.format("linear_attention")
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
UNSOUND = {
    "mamba": (MAMBA, LINEAR_LAYERS),
    "mamba2": ({**MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8}, LINEAR_LAYERS),
    "bert": (SIZES, NOT_CAUSAL),
    "roberta": (SIZES, NOT_CAUSAL),
    "xlnet": ({"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}, NOT_CAUSAL),
    "qwen3_next": ({**HEADS, **EXPERTS, **LINEAR, "shared_expert_intermediate_size": 16}, LINEAR_LAYERS),
    "qwen3_5_text": ({**HEADS, **LINEAR}, LINEAR_LAYERS),
    "lfm2": ({**USUAL, "layer_types": ["conv", "full_attention"]}, OTHER_LAYERS.format("conv")),
    "jamba": (
        {**USUAL, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
        LINEAR_LAYERS,
    ),
    "llama4_text": (
        {**HEADS, **LOCAL_EXPERTS, "attention_chunk_size": 64, "intermediate_size_mlp": 48},
        OTHER_LAYERS.format("chunked_attention"),
    ),
}


def tiny_model(kind, **sizes):
    """A model of an architecture with random weights, for the character tokenizer's tokens."""
    tokens = character_tokenizer()
    config = CONFIG_MAPPING[kind](
        **sizes, vocab_size=len(tokens), bos_token_id=None, eos_token_id=tokens.eos_token_id, pad_token_id=0
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def save_folder(folder, kind="llama", **sizes):
    """Writes such a model with its tokenizer; returns the folder."""
    tiny_model(kind, **(sizes or SOUND[kind])).save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return folder
