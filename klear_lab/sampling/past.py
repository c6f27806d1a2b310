"""What a decoding step reads of the key-value cache, and how sequences that share a row part.

The functions are plain enough for scripts of TorchScript (sampling/joined.py).

Shapes: B sequences, R rows, N pairs of a row and a token, H heads, T columns, D head dimension.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Past(NamedTuple):
    """Holds each sequence's row, the column in which a row's sequences start, and all layers' keys and values.

    The latter are (R, H, T, D), with all the room that there is. Columns from `first` to before `end` are in use.
    """

    row_B: Tensor
    start_R: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    first: int
    end: int


def part_rows(past: Past, token_B: Tensor) -> tuple[Tensor, Tensor]:
    """Parts sequences of one row that go on with different tokens.

    Those with the least token keep the row, and others get copies of it, behind the rows in use, so that what a
    step computes for a row is right for all its sequences. Returns row_B and start_R of then.
    """
    rows = len(past.start_R)
    if len(token_B) == rows:
        return past.row_B, past.start_R
    pair_N, pair_B = torch.unique((past.row_B << 32) + token_B, return_inverse=True)
    if len(pair_N) == rows:
        return past.row_B, past.start_R
    row_N = pair_N >> 32
    is_new_N = F.pad(row_N[1:] == row_N[:-1], [1, 0])
    source = row_N[is_new_N]
    for room in past.keys + past.values:
        used = room[:, :, past.first : past.end]
        used[rows : len(row_N)] = used.index_select(0, source)
    row_N = torch.where(is_new_N, is_new_N.cumsum(0) + (rows - 1), row_N)
    return row_N[pair_B], torch.cat((past.start_R, past.start_R[source]))


def seen_columns(start_R: Tensor, first: int, end: int) -> Tensor:
    """Returns which columns from `first` to `end` aren't before a row's start, (R, T)."""
    return torch.arange(first, end + 1, device=start_R.device) >= start_R[:, None]


def views_of(
    keys: Tensor, values: Tensor, rows: int, first: int, end: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns column `end` of a layer's first rows, and all from `first` to it, as views.

    In a script `narrow` and `select` are one operation each, where indices take one for each dimension.
    """
    keys, values, used = keys.narrow(0, 0, rows), values.narrow(0, 0, rows), end + 1 - first
    return keys.select(2, end), values.select(2, end), keys.narrow(2, first, used), values.narrow(2, first, used)
