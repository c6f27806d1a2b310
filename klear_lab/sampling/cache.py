"""The key-value cache of the sequences that are sampled together: preallocated, and refilled row by row.

A sequence has a row, and all rows share a clock: the columns up to `end` are the past, and each decoding step
writes one more column for all. So sequences lie flush right, as `generate` lays out prompts of unequal length, and
all that transformers knows of masks, windows and positions holds. A new sequence's prompt is written into the
columns before `end`, whenever it comes. When the columns run out, those that no row needs any more are dropped,
and the cache grows if the longest row needs it. Layers with a sliding window are kept whole; masks see to it.

Shapes: B rows, P prompts, H heads, T columns, D head dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from klear_lab.config import ConfigError
from klear_lab.policy.forward_checks import layers_problem

Views = tuple[Tensor, Tensor, Tensor, Tensor]  # of keys and values: a new column, and all with it
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
    """Holds one layer's keys and values, (B, H, T, D) each, with room for more rows and columns than in use."""

    is_compileable = True  # so that transformers decides on masks without reading them from the device
    is_sliding = False
    is_croppable = False

    def __init__(self, columns: Columns, room: list[Tensor]) -> None:
        """Takes `columns`, shared by all layers, and the room for keys and for values."""
        super().__init__()
        self.columns, self.room, self.is_initialized = columns, room, True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Does nothing, as the room is there from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Writes one step's keys and values behind the past; returns all that are in use, as views."""
        new_key_BHD, new_value_BHD, *used = self.views()
        new_key_BHD.copy_(key_states[:, :, 0])
        new_value_BHD.copy_(value_states[:, :, 0])
        return used[0], used[1]

    def views(self) -> Views:
        """Returns the column behind the past, and with it all that are in use."""
        keys, values = self.room
        return views_of(keys, values, self.columns.rows, self.columns.first, self.columns.end)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns the number of columns that `update` will return, and 0, their offset."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Returns the number of columns in use."""
        return self.columns.end - self.columns.first

    def get_max_length(self) -> int:
        """Returns -1: there is no bound."""
        return -1

    def admit(self, prompts: Sequence[Tensor], prompt_B: Tensor) -> None:
        """Writes copies of prompts, (P, H, T, D) flush right, into the rows behind those in use."""
        rows, first, end = self.columns.rows, self.columns.first, self.columns.end
        new = slice(rows, rows + len(prompt_B))
        for room, states in zip(self.room, prompts, strict=True):
            start = end - states.shape[2]
            lowest = min(first, start)
            # A masked column's weight is 0, and 0 times what happens to be there must be 0 too.
            room[:rows, :, lowest:first] = 0
            room[new, :, lowest:start] = 0
            room[new, :, start:end] = states.index_select(0, prompt_B)

    def move_columns(self, end: int, rows: int, columns: int) -> None:
        """Makes new room of this size, with what is in use moved to the columns before `end`."""
        now = self.columns
        for kind, old in enumerate(self.room):
            used = old[: now.rows, :, now.first : now.end]
            self.room[kind] = old.new_empty(rows, old.shape[1], columns, old.shape[3])
            self.room[kind][: now.rows, :, end - used.shape[2] : end] = used

    def move_rows(self, source_B: Tensor, to_B: Tensor) -> None:
        """Copies rows to the places of others."""
        for room in self.room:
            used = room[:, :, self.columns.first : self.columns.end]
            used.index_copy_(0, to_B, used.index_select(0, source_B))


def views_of(keys: Tensor, values: Tensor, rows: int, first: int, end: int) -> Views:
    """Returns column `end` of a layer's first rows, and all from `first` to it, as views."""
    keys, values = keys[:rows], values[:rows]
    return keys[:, :, end], values[:, :, end], keys[:, :, first : end + 1], values[:, :, first : end + 1]


class SlotCache(Cache):
    """Holds keys and values of up to `slots` sequences in `dtype`, or in the model's own if that is None.

    `slots` may change; the next allocation goes by it. Memory is at most `slots` times the longest live sequence.
    """

    def __init__(self, slots: int, dtype: torch.dtype | None) -> None:
        """Allocates nothing yet: the shapes are those of the first prompts' keys and values."""
        self.rooms: list[ColumnLayer] = []
        super().__init__(layers=self.rooms)  # type: ignore[arg-type]
        self.slots, self.dtype = slots, dtype
        self.columns = Columns()
        self.mask_BT = torch.empty(0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Returns the numbers of rows and of columns that there is room for."""
        rows, _, columns, _ = self.rooms[0].room[0].shape
        return rows, columns

    @property
    def attention_mask(self) -> Tensor:
        """Returns the mask for the next decoding step, (rows, columns in use and one more)."""
        return self.mask_BT[:, self.columns.first : self.columns.end + 1]

    def advance(self) -> None:
        """Moves the clock on by one column, once a decoding step has filled it."""
        self.columns.end += 1

    def clear(self, slots: int) -> None:
        """Takes all rows out, for up to `slots` new ones."""
        self.columns.starts.clear()
        self.slots = slots

    def admit(self, prompts: DynamicCache, lengths: list[int], prompt_of_row: list[int], steps: int) -> None:
        """Adds a row for each of `prompt_of_row`, a copy of that prompt, with room for `steps` columns to follow.

        `prompts` hold prompts of these `lengths` flush right.
        """
        layers = [states_of(layer) for layer in prompts.layers]
        if not self.rooms:
            self.rooms += [
                ColumnLayer(
                    self.columns,
                    [s.new_empty(0, s.shape[1], 0, s.shape[3], dtype=self.dtype) for s in states],
                )
                for states in layers
            ]
        self.make_room(max(lengths), steps)
        prompt_B = torch.tensor(prompt_of_row, device=layers[0][0].device)
        for layer, states in zip(self.rooms, layers, strict=True):
            layer.admit(states, prompt_B)
        self.columns.starts += [self.columns.end - lengths[prompt] for prompt in prompt_of_row]
        self.make_mask()

    def make_room(self, before: int, after: int) -> None:
        """Sees that there are `before` columns up to the present and `after` more; moves all rows if need be."""
        now = self.columns
        if not now.rows:
            now.end = before
        rows, columns = self.size
        if self.slots <= rows and before <= now.end and now.end + after <= columns:
            return
        end = max(now.end - now.first, before)
        columns = -(-max(end + after, end * 5 // 4) // BLOCK) * BLOCK
        for layer in self.rooms:
            layer.move_columns(end, self.slots, columns)
        now.starts[:] = [start + end - now.end for start in now.starts]
        now.end = end
        self.make_mask()

    def keep(self, order: list[int]) -> None:
        """Keeps these rows, in this order. A row that moves must come from behind the kept ones."""
        moves = [(source, to) for to, source in enumerate(order) if to != source]
        if moves:
            source_B, to_B = torch.tensor(moves, device=self.mask_BT.device).T
            for layer in self.rooms:
                layer.move_rows(source_B, to_B)
        self.columns.starts[:] = [self.columns.starts[row] for row in order]
        self.make_mask()

    def make_mask(self) -> None:
        """Masks, for each row, the columns before its sequence starts."""
        device = self.rooms[0].room[0].device
        starts_B = torch.tensor(self.columns.starts, device=device)
        self.mask_BT = torch.arange(self.size[1], device=device) >= starts_B[:, None]


def states_of(layer: Any) -> tuple[Tensor, Tensor]:
    """Returns a layer's keys and values. Raises `ConfigError` for a layer that keeps anything else."""
    if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
        raise ConfigError(
            f"model.path: the model keeps its past in a {type(layer).__name__}, and the sampler can only keep one "
            "key and value a token; take a model of full or sliding attention"
        )
    return layer.keys, layer.values


def check_cacheable(model: PreTrainedModel) -> None:
    """Raises `ConfigError` for a model whose past isn't keys and values of all its tokens."""
    if problem := layers_problem(model):
        raise ConfigError(f"model.path: {problem}")
