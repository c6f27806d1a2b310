"""The key-value cache of the sequences that are sampled together: preallocated, and refilled row by row.

A sequence has a row, and all rows share a clock: the columns up to `end` are the past, and each decoding step
writes one more column for all. Sequences with the same tokens so far can share a row, which is then computed once
for all of them, until they part (`past.part_rows`). Rows lie flush right, as `generate` lays out prompts of
unequal length, and all that transformers knows of masks, windows and positions holds. A new sequence's prompt is
written into the columns before `end`, whenever it comes. When the columns run out, those that no row needs any
more are dropped, and the cache grows if the longest row needs it. Layers with a sliding window are kept whole;
masks see to it.

Shapes: B sequences, R rows, P prompts, H heads, T columns, D head dimension.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import CacheLayerMixin, DynamicLayer

from klear_lab.config import ConfigError
from klear_lab.policy.forward_checks import layers_problem
from klear_lab.sampling.past import Past, seen_columns, views_of

BLOCK = 32  # columns; the cache's length is a multiple


class Columns:
    """Says which rows and columns of the cache are in use. Row r holds its sequence from column `starts[r]` on."""

    def __init__(self) -> None:
        """Starts without any rows."""
        self.starts: list[int] = []
        self.end = 0

    @property
    def rows(self) -> int:
        """Returns the number of rows in use, the cache's first."""
        return len(self.starts)

    @property
    def first(self) -> int:
        """Returns the first column that any row needs."""
        return min(self.starts, default=self.end)


class ColumnLayer(CacheLayerMixin):
    """Holds one layer's keys and values, (R, H, T, D) each, with room for more rows and columns than in use."""

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
        now = self.columns
        new_key_RHD, new_value_RHD, *used = views_of(self.room[0], self.room[1], now.rows, now.first, now.end)
        new_key_RHD.copy_(key_states[:, :, 0])
        new_value_RHD.copy_(value_states[:, :, 0])
        return used[0], used[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns the number of columns that `update` will return, and 0, their offset."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Returns the number of columns in use."""
        return self.columns.end - self.columns.first

    def get_max_length(self) -> int:
        """Returns -1: there is no bound."""
        return -1

    def admit(self, prompts: Sequence[Tensor], prompt_R: Tensor) -> None:
        """Writes copies of prompts, (P, H, T, D) flush right, into the rows behind those in use."""
        rows, first, end = self.columns.rows, self.columns.first, self.columns.end
        new = slice(rows, rows + len(prompt_R))
        for room, states in zip(self.room, prompts, strict=True):
            start = end - states.shape[2]
            lowest = min(first, start)
            # A masked column's weight is 0, and 0 times what happens to be there must be 0 too.
            room[:rows, :, lowest:first] = 0
            room[new, :, lowest:start] = 0
            room[new, :, start:end] = states.index_select(0, prompt_R)

    def move_columns(self, end: int, rows: int, columns: int) -> None:
        """Makes new room of this size, with what is in use moved to the columns before `end`."""
        now = self.columns
        for kind, old in enumerate(self.room):
            used = old[: now.rows, :, now.first : now.end]
            self.room[kind] = old.new_empty(rows, old.shape[1], columns, old.shape[3])
            self.room[kind][: now.rows, :, end - used.shape[2] : end] = used

    def move_rows(self, source_R: Tensor, to_R: Tensor) -> None:
        """Copies rows to the places of others."""
        for room in self.room:
            used = room[:, :, self.columns.first : self.columns.end]
            used.index_copy_(0, to_R, used.index_select(0, source_R))


class SlotCache(Cache):
    """Holds keys and values of up to `slots` sequences in `dtype`, or in the model's own if that is None.

    `slots` may change; the next allocation goes by it. Memory is at most `slots` times the longest live sequence.
    `row_B` is each sequence's row. All have rows of their own, in their order, unless `shares` is set: then those
    that are admitted together with one prompt share its row, and who decodes parts them.
    """

    def __init__(self, slots: int, dtype: torch.dtype | None) -> None:
        """Allocates nothing yet: the shapes are those of the first prompts' keys and values."""
        self.rooms: list[ColumnLayer] = []
        super().__init__(layers=self.rooms)  # type: ignore[arg-type]
        self.slots, self.dtype = slots, dtype
        self.columns = Columns()
        self.shares = False
        self.row_B, self.start_R = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)

    @property
    def size(self) -> tuple[int, int]:
        """Returns the numbers of rows and of columns that there is room for."""
        rows, _, columns, _ = self.rooms[0].room[0].shape
        return rows, columns

    @property
    def attention_mask(self) -> Tensor:
        """Returns the mask for the next decoding step, (rows, columns in use and one more)."""
        return seen_columns(self.start_R, self.columns.first, self.columns.end)

    def advance(self) -> None:
        """Moves the clock on by one column, once a decoding step has filled it."""
        self.columns.end += 1

    def clear(self, slots: int) -> None:
        """Takes all rows out, for up to `slots` new ones."""
        self.slots, self.row_B = slots, self.row_B[:0]
        self.columns.starts.clear()

    def admit(self, prompts: DynamicCache, lengths: list[int], prompt_of_sequence: list[int], steps: int) -> None:
        """Adds sequences that start with prompts of these numbers, with room for `steps` columns to follow.

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
        if self.shares:
            prompt_of_row, row_of_sequence = [*range(len(lengths))], prompt_of_sequence
        else:
            prompt_of_row, row_of_sequence = prompt_of_sequence, [*range(len(prompt_of_sequence))]
        device = layers[0][0].device
        prompt_R = torch.tensor(prompt_of_row, device=device)
        for layer, states in zip(self.rooms, layers, strict=True):
            layer.admit(states, prompt_R)
        row_B = torch.tensor(row_of_sequence, device=device) + self.columns.rows
        self.row_B = torch.cat((self.row_B.to(device), row_B))
        self.columns.starts += [self.columns.end - lengths[prompt] for prompt in prompt_of_row]
        self.tell_starts()

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
        self.tell_starts()

    def keep(self, order: list[int]) -> None:
        """Keeps these sequences, in this order. One that moves must come from behind the kept ones."""
        row_of_sequence = self.row_B.tolist()
        kept = [row_of_sequence[sequence] for sequence in order]
        rows = fill_holes(sorted({*kept}))
        moves = [(source, to) for to, source in enumerate(rows) if to != source]
        if moves:
            source_R, to_R = torch.tensor(moves, device=self.row_B.device).T
            for layer in self.rooms:
                layer.move_rows(source_R, to_R)
        place = {row: to for to, row in enumerate(rows)}
        self.row_B = self.row_B.new_tensor([place[row] for row in kept])
        self.columns.starts[:] = [self.columns.starts[row] for row in rows]
        self.tell_starts()

    @property
    def past(self) -> Past:
        """Returns what a decoding step reads."""
        keys, values = ([room.room[kind] for room in self.rooms] for kind in (0, 1))
        return Past(self.row_B, self.start_R, keys, values, self.columns.first, self.columns.end)

    def part(self, row_B: Tensor, start_R: Tensor) -> None:
        """Takes over the rows in which `part_rows` has put sequences."""
        if len(start_R) != self.columns.rows:
            self.row_B, self.start_R = row_B, start_R
            self.columns.starts[:] = start_R.tolist()

    def tell_starts(self) -> None:
        """Writes the columns in which rows start to the device."""
        self.start_R = torch.tensor(self.columns.starts, dtype=torch.long, device=self.rooms[0].room[0].device)


def fill_holes(live: list[int]) -> list[int]:
    """Returns these ascending row numbers in an order that moves as few as possible to get rid of gaps."""
    count = len(live)
    stay = {row for row in live if row < count}
    move = [row for row in live if row >= count]
    return [row if row in stay else move.pop() for row in range(count)]


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
