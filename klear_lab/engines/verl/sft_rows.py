"""The data set class that verl's SFT trainer reads our rows with.

verl's own applies the chat template to each message alone. Templates that drop the thought of an earlier answer,
as Qwen3's does, then drop it from the only one, and verl stops. Here a response follows its prompt by klear_lab's
codec, token by token as in klear_lab's own SFT. Rows stay on disk, in a memory map that all processes share.

verl shuffles a data set in an order of its own. This one has a row for each place of order.npy beside the rows,
put where verl's shuffle will find it, so that each step trains on the rows that klear_lab chose for it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Rows
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler
from transformers import PreTrainedTokenizerBase

from klear_lab.engines.verl.sft import ORDER
from klear_lab.policy.codec import make_codec


class KlearSFTRows(Dataset[dict[str, Tensor]]):
    """The rows of all steps that `write_sft_rows` wrote: token ids, and which of them are learned."""

    def __init__(
        self,
        parquet_files: Any,
        tokenizer: PreTrainedTokenizerBase,
        config: DictConfig,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        """Takes what verl hands over; `config` is the part `data` of its configuration."""
        if max_samples >= 0:
            raise ValueError(
                "data.train_max_samples: must be -1; klear_lab chooses each step's rows by sft.batches"
            )
        file = Path(parquet_files if isinstance(parquet_files, str) else parquet_files[0])
        self.rows = Rows.from_parquet(str(file))
        self.row_N = unshuffled(np.load(file.with_name(ORDER)))
        arguments: Any = OmegaConf.to_container(config.apply_chat_template_kwargs, resolve=True)
        self.codec = make_codec(tokenizer, None, arguments or {})

    def __len__(self) -> int:
        """Returns the number of rows of all steps together."""
        return len(self.row_N)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Returns the tokens of a row, their positions, and 1 for each that is learned."""
        *prompt, answer = self.rows[int(self.row_N[number])]["messages"]
        prompt_ids = self.codec.encode_prompt(prompt)
        response_ids = self.codec.encode_response(prompt, answer["content"])
        input_ids = torch.tensor([*prompt_ids, *response_ids])
        loss_mask = torch.tensor([0] * len(prompt_ids) + [1] * len(response_ids))
        return {"input_ids": input_ids, "position_ids": torch.arange(len(input_ids)), "loss_mask": loss_mask}


def unshuffled(order_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns rows that verl's shuffle, that of its sampler's first epoch, brings into this order."""
    numbers: Any = range(len(order_N))
    places: Any = DistributedSampler(numbers, num_replicas=1, rank=0, shuffle=True, drop_last=True)
    row_N = np.empty_like(order_N)
    row_N[np.fromiter(places, dtype=np.int64, count=len(order_N))] = order_N
    return row_N
