"""Lays out a micro-batch as a tree of its sequences' prefixes, of which each distinct one is computed once.

    sequences:  A B C D       nodes:  A B C D      attention:  A B C D
                A B C E                     E                  A B C E
                A B F                   F                      A B F
                A B C D

A causal model computes the same at the end of a prefix whatever comes after it. So a prompt is read once for all
its responses, what responses have in common at their start is read once too, and equal ones are one.

Shapes: B sequences, T positions, N nodes, U distinct tokens, M nodes that predict a response token, Q distinct
pairs of such a node and the token after it, P response tokens of all sequences in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from klear_lab.policy.micro_batches import Tokenized
from klear_lab.policy.packed_functions import Rectangle

Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True)
class PrefixTree:
    """Holds the nodes of a micro-batch's sequences, each of which lacks its last token, which predicts none.

    Node n is token `token_U[kind_N[n]]` at `position_N[n]`. The response tokens are those of `pair_P`: pair q says
    that `target_Q[q]` comes after node `predicts_M[node_Q[q]]`. Attention reads `rectangles`, and writes of
    `last_rectangles` the nodes `predicts_M` alone.
    """

    token_U: Tensor
    kind_N: Tensor
    position_N: Tensor
    predicts_M: Tensor
    node_Q: Tensor
    target_Q: Tensor
    pair_P: Tensor
    rectangles: list[Rectangle]
    last_rectangles: list[Rectangle]


def prefix_tree(
    sequences: Sequence[Tokenized], heads: int, key_heads: int, dtype: torch.dtype = torch.float32
) -> PrefixTree:
    """Returns the tree of sequences, whose queries have so many `heads` and whose keys and values `key_heads`.

    `dtype` is the model's.
    """
    tokens = [[*s.prompt_ids, *s.response_ids] for s in sequences]
    order = sorted(range(len(tokens)), key=tokens.__getitem__)  # so that equal prefixes are neighbours
    count_B1 = np.array([[len(tokens[b])] for b in order])
    prompt_B1 = np.array([[len(sequences[b].prompt_ids)] for b in order])
    ids = np.full((len(order), count_B1.max()), -1)
    for row, b in zip(ids, order, strict=True):
        row[: len(tokens[b])] = tokens[b]
    id_BT, target_BT, ids_at_most = ids[:, :-1], ids[:, 1:], ids.max() + 1
    position_T = np.arange(id_BT.shape[1])
    is_node_BT = position_T < count_B1 - 1
    is_new_BT, node_BT = numbered(id_BT, is_node_BT)

    given_B = np.argsort(order)
    predicts_BT = (is_node_BT & (position_T >= prompt_B1 - 1))[given_B]
    node_P, target_P = node_BT[given_B][predicts_BT], target_BT[given_B][predicts_BT]
    both_Q, pair_P = np.unique(node_P * ids_at_most + target_P, return_inverse=True)
    predicts_M, node_Q = np.unique(both_Q // ids_at_most, return_inverse=True)
    token_U, kind_N = np.unique(id_BT[is_new_BT], return_inverse=True)
    output_N = np.full(len(kind_N), -1)
    output_N[predicts_M] = np.arange(len(predicts_M))

    rectangles, last_rectangles = [], []
    reads_B = is_new_BT.any(1)  # all nodes of other sequences are those of their neighbours
    for rows, longest in shorter_and_longer((count_B1[:, 0] - 1) * reads_B):
        node, own = node_BT[rows, :longest], is_new_BT[rows, :longest]
        hidden_TT = torch.full((longest, longest), -torch.inf, dtype=dtype).triu_(1)
        whole = Rectangle(hidden_TT, *read_rows(node, heads, key_heads), *written_rows(own, node, heads))
        place_R, row_R = written_rows(own & (output_N[node] >= 0), output_N[node], heads)
        rectangles.append(whole)
        last_rectangles.append(replace(whole, place_R=place_R, row_R=row_R))
    return PrefixTree(
        as_tensor(token_U),
        as_tensor(kind_N),
        as_tensor(is_new_BT.nonzero()[1]),
        as_tensor(predicts_M),
        as_tensor(node_Q),
        as_tensor(both_Q % ids_at_most),
        as_tensor(pair_P),
        rectangles,
        last_rectangles,
    )


def numbered(id_BT: Integers, is_node_BT: Booleans) -> tuple[Booleans, Integers]:
    """Tells which tokens of sorted sequences are the first of their prefix, is_new_BT, and every token's node_BT.

    Nodes are counted by sequence and position. Where there is no node, node_BT is 0.
    """
    is_shared_BT = np.zeros_like(is_node_BT)
    is_shared_BT[1:] = np.logical_and.accumulate(id_BT[1:] == id_BT[:-1], axis=1) & is_node_BT[:-1]
    is_new_BT = is_node_BT & ~is_shared_BT
    number_BT = np.cumsum(is_new_BT).reshape(is_new_BT.shape) - 1
    return is_new_BT, np.maximum.accumulate(np.where(is_new_BT, number_BT, -1)) * is_node_BT


def shorter_and_longer(count_B: Integers) -> list[tuple[Integers, int]]:
    """Cuts sequences with so many tokens to read into at most two parts, of shorter and longer, of least area.

    Returns which sequences are in a part, and its most tokens. Those without tokens are in none.
    """
    (row_B,) = count_B.nonzero()
    row_B = row_B[np.argsort(count_B[row_B], kind="stable")]
    ordered_B = count_B[row_B]
    longest = ordered_B[-1]
    cut_B = np.arange(len(row_B))
    cut = int(np.argmin(cut_B * np.append(0, ordered_B[:-1]) ** 2 + (len(row_B) - cut_B) * longest**2))
    return [(part, int(count_B[part[-1]])) for part in (row_B[:cut], row_B[cut:]) if len(part)]


def read_rows(node_BT: Integers, heads: int, key_heads: int) -> tuple[Tensor, Tensor]:
    """Returns `query_key_2F` and `value_F` of a rectangle of these nodes."""
    head_A1 = np.arange(heads)[:, None]
    key_head_A1 = head_A1 // (heads // key_heads)
    node_B1T = node_BT[:, None]
    query_BAT = node_B1T * (heads + key_heads) + head_A1
    key_BAT = node_B1T * (heads + key_heads) + heads + key_head_A1
    query_key_2F = np.concatenate((query_BAT.ravel(), key_BAT.ravel()))
    return as_tensor(query_key_2F), as_tensor((node_B1T * key_heads + key_head_A1).ravel())


def written_rows(is_own_BT: Booleans, output_BT: Integers, heads: int) -> tuple[Tensor, Tensor]:
    """Returns `place_R` and `row_R` of a rectangle whose sequences write `output_BT` where it is their own."""
    row_BAT = output_BT[:, None] * heads + np.arange(heads)[:, None]
    (place_R,) = np.broadcast_to(is_own_BT[:, None], row_BAT.shape).ravel().nonzero()
    return as_tensor(place_R), as_tensor(row_BAT.ravel()[place_R])


def as_tensor(numbers: Any) -> Tensor:
    """Returns integers as a tensor; `torch.tensor` takes several times as long."""
    return torch.from_numpy(np.asarray(numbers, dtype=np.int64))
