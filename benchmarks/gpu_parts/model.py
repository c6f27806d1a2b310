"""The model folder that all parts load: random weights in a real model's shape, and a tokenizer made here."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from gpu_parts.measure import Report, measured
from gpu_parts.sizes import Job
from klear_lab.config import ModelConfig
from klear_lab.policy.model import Policy, load_pretrained

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Makes a tokenizer with a token for each byte; the other ids are words of their own, which no text has.

    They can be decoded, since random weights draw any id.
    """
    tokens = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [f"t{number}" for number in range(len(tokens), vocabulary)]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="left"
    )
    fast.chat_template = TEMPLATE
    return fast


def make_model(job: Job, report: Report) -> None:
    """Writes the folder, with weights in bfloat16 as published models have them."""
    sizes, tokenizer = job.sizes, make_tokenizer(job.sizes.vocabulary)
    config = Qwen3Config(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with measured(job.device) as found:
        with torch.device(job.device):
            model = Qwen3ForCausalLM(config)
        model.to(torch.bfloat16).save_pretrained(job.model)
        tokenizer.save_pretrained(job.model)
    report("parameters", float(model.num_parameters()))
    report("making and saving them", found.seconds, "s")


def load(job: Job, gradient_checkpointing: bool = False) -> Policy:
    """Loads the folder as a run does."""
    config = ModelConfig(name="path", path=str(job.model), gradient_checkpointing=gradient_checkpointing)
    return load_pretrained(job.model, config, torch.device(job.device))


def questions(count: int) -> list[str]:
    """Returns different short questions."""
    return [f"{number}+{7 * number + 3}*2=" for number in range(count)]


def prompts(policy: Policy, count: int) -> list[list[int]]:
    """Returns the token ids of different short prompts."""
    return [policy.codec.encode_prompt([{"role": "user", "content": text}]) for text in questions(count)]
