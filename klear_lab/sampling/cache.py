"""The key-value cache of the sequences that are sampled together: preallocated, and refilled row by row.

A sequence has a row, and all rows share a clock: the columns up to `end` are the past, and each decoding step writes
one more column for all. So sequences lie flush right, as `generate` lays out prompts of unequal length, and all that
transformers knows of masks, windows and positions holds. A new sequence's prompt is written into the columns before
`end`, whenever it comes. When the columns run out, those that no row needs any more are dropped, and the cache grows
if the longest row needs it. Layers with a sliding window are kept whole; masks see to the window.

Shapes: B rows, H heads, T columns, D head dimension.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from klear_lab.config import ConfigError

BLOCK = 32  # columns; the cache's length is a multiple


class Columns:
    """Says which rows and columns of the cache are in use. Row r holds its sequence from column `starts[r]` on."""

    def __init__(self) -> None:
        """Starts without any rows."""
        self.starts: list[int] = []
        self.end = 0

    @property
    def rows(self) -> int:
        """Returns the number of sequences; they are the cache's first rows."""
        return len(self.starts)

    @property
    def first(self) -> int:
        """Returns the first column that any row needs."""
        return min(self.starts, default=self.end)


class ColumnLayer(CacheLayerMixin):
    """Holds one layer's keys and values, (B, H, T, D) each, allocated for more rows and columns than are in use."""

    is_compileable = True  # so that transformers decides on masks without reading them from the device
    is_sliding = False
    is_croppable = False

    def __init__(self, columns: Columns, keys: Tensor, values: Tensor) -> None:
        """Takes `columns`, shared by all layers, and the room for keys and values."""
        super().__init__()
        self.columns, self.keys, self.values, self.is_initialized = columns, keys, values, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Does nothing, as the room is there from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes one step's keys and values behind the past; returns all that are in use, as views."""
        now = self.columns
        rows, first, end = now.rows, now.first, now.end
        self.keys[:rows, :, end] = key_states[:, :, 0]
        self.values[:rows, :, end] = value_states[:, :, 0]
        return self.keys[:rows, :, first : end + 1], self.values[:rows, :, first : end + 1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns the number of columns that `update` will return, and 0, their offset."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Returns the number of columns in use."""
        return self.columns.end - self.columns.first

    def get_max_length(self) -> int:
        """Returns -1: there is no bound."""
        return -1


class SlotCache(Cache):
    """Holds keys and values of up to `slots` sequences in `dtype`, or in the model's own if that is None."""

    def __init__(self, slots: int, dtype: torch.dtype | None) -> None:
        """Allocates nothing yet: shapes are those of the first prompts' keys and values."""
        super().__init__(layers=[])
        self.slots, self.dtype = slots, dtype
        self.columns = Columns()
        self.mask_BT = torch.empty(0, 0)

    @property
    def attention_mask(self) -> Tensor:
        """Returns the mask for the next decoding step, (rows, columns in use and one more)."""
        now = self.columns
        return self.mask_BT[: now.rows, now.first : now.end + 1]

    def advance(self) -> None:
        """Moves the clock on by one column, once a decoding step has filled it."""
        self.columns.end += 1

    def clear(self) -> None:
        """Takes all rows out."""
        self.columns.starts.clear()

    def admit(self, prompts: DynamicCache, lengths: list[int], prompt_of_row: list[int], steps: int) -> None:
        """Adds a row for each of `prompt_of_row`, a copy of that prompt, with room for `steps` columns to follow.

        `prompts` hold prompts of these `lengths` flush right.
        """
        if not self.layers:
            self.layers = [ColumnLayer(self.columns, *self.no_room(layer)) for layer in prompts.layers]
        longest, old_rows = max(lengths), self.columns.rows
        self.make_room(longest, steps)
        end = self.columns.end
        first = min(self.columns.first, end - longest)
        rows = slice(old_rows, old_rows + len(prompt_of_row))
        source = torch.tensor(prompt_of_row, device=prompts.layers[0].keys.device)
        for layer, read in zip(self.layers, prompts.layers, strict=True):
            for room, states in ((layer.keys, read.keys), (layer.values, read.values)):
                # Masked columns are multiplied by 0, so what is left in them must be finite.
                room[:old_rows, :, first : self.columns.first] = 0
                room[rows, :, first : end - longest] = 0
                room[rows, :, end - longest : end] = states.index_select(0, source)
        self.columns.starts += [end - lengths[prompt] for prompt in prompt_of_row]
        self.make_mask()

    def no_room(self, layer: DynamicLayer) -> tuple[Tensor, Tensor]:
        """Returns empty keys and values of the shapes of a layer's, without columns."""
        keys, values = layer.keys, layer.values
        return tuple(
            states.new_empty(self.slots, states.shape[1], 0, states.shape[3], dtype=self.dtype)
            for states in (keys, values)
        )

    def make_room(self, before: int, after: int) -> None:
        """Sees that there are `before` columns up to the present and `after` to come; moves all rows if need be."""
        now = self.columns
        if not now.rows:
            now.end = before
        if before <= now.end and now.end + after <= self.layers[0].keys.shape[2]:
            return
        used = now.end - now.first
        end = max(used, before)
        columns = -(-max(end + after, end * 5 // 4) // BLOCK) * BLOCK
        for layer in self.layers:
            layer.keys = self.moved(layer.keys, end, columns)
            layer.values = self.moved(layer.values, end, columns)
        now.starts[:] = [start + end - now.end for start in now.starts]
        now.end = end
        self.make_mask()

    def moved(self, states: Tensor, end: int, columns: int) -> Tensor:
        """Returns new room of so many columns, with the rows' columns in use moved to before `end`."""
        now = self.columns
        room = states.new_empty(*states.shape[:2], columns, states.shape[3])
        used = states[: now.rows, :, now.first : now.end]
        room[: now.rows, :, end - used.shape[2] : end] = used
        return room

    def keep(self, order: list[int]) -> None:
        """Keeps these rows, in this order. A row that moves must come from behind the kept ones."""
        now = self.columns
        moves = [(to, source) for to, source in enumerate(order) if to != source]
        if moves:
            to, source = torch.tensor(moves, device=self.mask_BT.device).T
            for layer in self.layers:
                for states in (layer.keys, layer.values):
                    states[to, :, now.first : now.end] = states[source, :, now.first : now.end]
        now.starts[:] = [now.starts[row] for row in order]
        self.make_mask()

    def make_mask(self) -> None:
        """Masks, for each row, the columns before its sequence starts."""
        keys = self.layers[0].keys
        starts_B = torch.tensor(self.columns.starts, device=keys.device)
        self.mask_BT = torch.arange(keys.shape[2], device=keys.device) >= starts_B[:, None]


def check_cacheable(model: PreTrainedModel) -> None:
    """Raises `ConfigError` for a model whose past isn't keys and values of all its tokens."""
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention", "sliding_attention"}
    if kinds or model._is_stateful:
        why = f"has layers of {', '.join(sorted(kinds))}" if kinds else "carries a recurrent state"
        raise ConfigError(
            f"model.path: a model of type {config.model_type} {why}, so its past is not one key and value a token, "
            "and the sampler can't keep it; take a model of full or sliding attention"
        )
