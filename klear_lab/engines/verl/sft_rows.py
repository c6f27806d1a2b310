"""The data set class that verl's SFT trainer reads our rows with.

verl's own applies the chat template to each message alone. Templates that drop the thought of an earlier answer,
as Qwen3's does, then drop it from the only one, and verl stops. Here a response follows its prompt by klear_lab's
codec, token by token as in klear_lab's own SFT. Rows stay on disk, in a memory map that all processes share.
"""

from typing import Any

import torch
from datasets import Dataset as Rows
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from klear_lab.policy.codec import make_codec


class KlearSFTRows(Dataset[dict[str, Tensor]]):
    """Rows of `write_sft_rows`: token ids, and which of them are learned."""

    def __init__(
        self,
        parquet_files: Any,
        tokenizer: PreTrainedTokenizerBase,
        config: DictConfig,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        """Takes what verl hands over; `config` is the part `data` of its configuration."""
        rows = Rows.from_parquet(parquet_files if isinstance(parquet_files, str) else [*parquet_files])
        self.rows = rows if max_samples < 0 else rows.select(range(min(max_samples, len(rows))))
        arguments: Any = OmegaConf.to_container(config.apply_chat_template_kwargs, resolve=True)
        self.codec = make_codec(tokenizer, None, arguments or {})

    def __len__(self) -> int:
        """Returns the number of rows."""
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Returns the tokens of a row, their positions, and 1 for each that is learned."""
        *prompt, answer = self.rows[number]["messages"]
        prompt_ids = self.codec.encode_prompt(prompt)
        response_ids = self.codec.encode_response(prompt, answer["content"])
        input_ids = torch.tensor([*prompt_ids, *response_ids])
        loss_mask = torch.tensor([0] * len(prompt_ids) + [1] * len(response_ids))
        return {"input_ids": input_ids, "position_ids": torch.arange(len(input_ids)), "loss_mask": loss_mask}
