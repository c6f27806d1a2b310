"""Model folders as `save_pretrained` writes them: a small one of another architecture, and a config alone."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Qwen3Config

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_pair_tokenizer(template):
    """A real byte-pair tokenizer in miniature, with ChatML tokens, in which `<think>` is several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["<think>7+5=2;2*3=6</think>4 user assistant"] * 50, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = template
    return fast


def save_model(folder, template=CHATML, positions=256):
    """A small GPT-2, another architecture than the embedded one, without a pad token."""
    tokenizer = byte_pair_tokenizer(template)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_positions=positions, n_embd=16, n_layer=2, n_head=2, eos_token_id=0
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_qwen3_config(folder, hidden=1024, intermediate=3072, **other):
    """The config of a small published Qwen3, by default of 0.6 billion parameters, and nothing else."""
    sizes = dict(num_hidden_layers=28, num_attention_heads=16, tie_word_embeddings=True) | other
    Qwen3Config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        **sizes,
    ).save_pretrained(folder)
    return folder
