"""Policies: a tiny Qwen3 from scratch, or any causal LM from a folder or the hub, with its tokenizer.

Both kinds go through the same calls (chat template, stop tokens, `save_pretrained`), so that tests of the tiny
model test what runs on a real one.
"""

import string
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.core_model_loading import revert_weight_conversion
from transformers.utils.logging import disable_progress_bar

from klear_lab.config import ConfigError, ModelConfig
from klear_lab.policy.codec import Codec, make_codec
from klear_lab.policy.folder_checks import (
    check_files,
    check_loaded,
    check_saving,
    naming,
    position_limit,
    refusal,
    set_positions,
    tokenizer_problem,
)
from klear_lab.policy.forward_checks import forward_problem, layers_problem, silence_dropout
from klear_lab.policy.lora import add_adapters, merged_weights
from klear_lab.policy.template_checks import template_problem
from klear_lab.storage.files import sync_tree

disable_progress_bar()  # its bars break into ours, and the stage tells that it reads a folder

SPECIAL_TOKENS = ["<pad>", "<eos>", "<unk>", "<think>", "</think>"]
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"


@dataclass
class Policy:
    """A policy is a causal language model on its device, with the codec that makes its tokens.

    `autocast_dtype` is bfloat16 where matrix products run in it, else None; weights, optimizer and
    log-probabilities stay float32, because a learning rate of 1e-6 is below bfloat16's resolution of most weights.
    """

    model: PreTrainedModel
    codec: Codec
    device: torch.device
    autocast_dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the precision context that every forward pass must run in."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    @property
    def stop_token_ids(self) -> list[int]:
        """Returns the tokens that end a response."""
        return self.codec.stop_token_ids

    @property
    def pad_token_id(self) -> int:
        """Returns the token that fills unused positions."""
        return self.codec.pad_token_id

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Returns the weights by the names that transformers saves them under, adapters merged.

        A mixture of experts has other names in memory, where its experts are one tensor.
        """
        return revert_weight_conversion(self.model, dict(merged_weights(self.model))).items()

    def save(self, folder: Path) -> None:
        """Writes model and tokenizer into a folder that any transformers program can read."""
        folder.mkdir(exist_ok=True)  # fails if the run folder is gone; transformers would make a new, empty one
        self.model.save_pretrained(folder, state_dict=dict(merged_weights(self.model)))
        self.codec.tokenizer.save_pretrained(folder)
        sync_tree(folder)  # callers then remove the checkpoints that it came from


def choose_device(name: str) -> torch.device:
    """Returns the device of a name; `auto` takes cuda, else mps, else cpu.

    Raises `ConfigError` for a device that isn't there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, found in there.items() if found))
    if not there[name]:
        found = ", ".join(device for device, found in there.items() if found)
        raise ConfigError(f"device={name}: PyTorch finds none here; must be auto or one of {found}")
    return torch.device(name)


def load_policy(config: ModelConfig, device: torch.device, seed: int) -> Policy:
    """Returns the policy before any training. `seed` draws the weights of a model from scratch.

    Raises `ConfigError` for a `model.path` that can't be loaded or trained.
    """
    if config.path is None:
        return build_tiny(config, device, seed)
    return load_pretrained(expanded(config.path), config, device)


def load_codec(config: ModelConfig) -> tuple[Codec, int | None]:
    """Returns a model's codec and the most tokens that it can read, None for any number, without its weights.

    The codec doesn't know the stop tokens that only the weights' generation config has.
    Raises `ConfigError` for a `model.path` that can't be loaded.
    """
    if config.path is None:
        return make_codec(character_tokenizer(), None, {}), config.max_positions
    path = expanded(config.path)
    chosen = revision(path, config)
    check_files(path, chosen)
    with naming(path, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(path, **chosen)
    with naming(path, "config.json"):
        found = AutoConfig.from_pretrained(path, **chosen)
        set_positions(path, found, config.positions)
    if problem := tokenizer_problem(tokenizer, rows=len(tokenizer)):
        raise refusal(path, problem)
    codec = make_codec(tokenizer, None, config.template_arguments or {})
    if problem := template_problem(codec):
        raise refusal(path, problem)
    return codec, config.positions or position_limit(found)


def expanded(path: str) -> str:
    """Returns a path with its home folder, for which transformers would ask the hub."""
    return str(Path(path).expanduser()) if path.startswith("~") else path


def revision(path: str | Path, config: ModelConfig) -> dict[str, str]:
    """Returns the argument that says which revision of a hub name to load; a folder has none."""
    return {} if config.revision is None or Path(path).is_dir() else {"revision": config.revision}


def build_tiny(config: ModelConfig, device: torch.device, seed: int) -> Policy:
    """Builds a Qwen3 of the configured size, with random weights and one token for each character."""
    tokenizer = character_tokenizer()
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(tiny_config(config, tokenizer))
    return finish(model, tokenizer, config, device)


def tiny_config(config: ModelConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """Returns the shape of a model from scratch."""
    return Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=3 * config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        head_dim=config.hidden_size // config.heads,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        # The usual 0.02 is for hidden sizes in the thousands; at 64 it costs twice the SFT steps.
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def load_pretrained(path: str | Path, config: ModelConfig, device: torch.device) -> Policy:
    """Loads model and tokenizer from a folder or the hub.

    Raises `ConfigError` where there is none, and where one of the checks finds that it can't be trained.
    """
    chosen = revision(path, config)
    check_files(path, chosen)
    with naming(path, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(path, **chosen)
    with naming(path, "model"):
        # dtype is fixed here: checkpoints in bfloat16 would otherwise train in it, see `Policy`.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, **chosen
        )
    model, loading = loaded
    check_loaded(path, model, tokenizer, loading)
    set_positions(path, model.config, config.positions)
    policy = finish(model, tokenizer, config, device)
    check_saving(path, model)
    if problem := template_problem(policy.codec):
        raise refusal(path, problem)
    return policy


def finish(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: ModelConfig, device: torch.device
) -> Policy:
    """Puts a model on its device, in its precision. Raises `ConfigError` for one that can't be trained."""
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    model.to(device)  # type: ignore[arg-type]
    silence_dropout(model)
    if problem := layers_problem(model) or forward_problem(model):
        raise refusal(config.path or "null", problem)
    if config.lora_rank is not None:
        add_adapters(model, config.lora_rank, config.lora_alpha)
        if problem := forward_problem(model):
            raise ConfigError(f"model.lora_rank={config.lora_rank}: with adapters, {problem}; set it to null")
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()  # activation checkpointing only works in this mode, and from_pretrained leaves the other
    configured = getattr(model.generation_config, "eos_token_id", None)
    codec = make_codec(tokenizer, configured, config.template_arguments or {})
    return Policy(model, codec, device, torch.bfloat16 if precision == "bfloat16" else None)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """Builds a tokenizer with one token for each character, and tokens of their own for `<think>` and `</think>`.

    Its chat template only joins the messages' texts.
    """
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    fast.add_tokens(["<think>", "</think>"], special_tokens=True)
    fast.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return fast
