"""What a packed forward pass computes between its matrix products, with gradients written by hand.

For their speed alone: autograd keeps more tensors of each of these and goes over them more often. Packed reading
takes a fifth less with them than without.

Shapes: N tokens, I intermediate size, A attention heads, D head dimension, R rows (one for each token and head),
T positions, F rows of a rectangle (T for each sequence and head).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class Scaled(Function):
    """Divides vectors by their root mean square: an RMSNorm without its weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        """Returns x / sqrt(mean(x^2) + epsilon) over the last dimension."""
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factor = torch.addcmul(norm.new_full((), epsilon), norm, norm, value=1 / x.shape[-1]).rsqrt_()
        scaled = x * factor
        ctx.save_for_backward(scaled, factor)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Returns factor * (gradient - scaled * mean(gradient * scaled))."""
        scaled, factor = ctx.saved_tensors
        product = torch.linalg.vecdot(gradient, scaled).unsqueeze(-1)
        return torch.addcmul(gradient, scaled, product, value=-1 / scaled.shape[-1]).mul_(factor), None


class Gated(Function):
    """Multiplies by the gate: silu(gate) * up."""

    @staticmethod
    def forward(ctx: Any, gate_NI: Tensor, up_NI: Tensor) -> Tensor:
        """Returns the product; without gradients, in the memory of the gate."""
        if not any(ctx.needs_input_grad):
            return F.silu(gate_NI, inplace=True).mul_(up_NI)
        open_NI = F.silu(gate_NI)
        ctx.save_for_backward(gate_NI, up_NI, open_NI)
        return open_NI * up_NI

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NI: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the gradients of gate and up."""
        gate_NI, up_NI, open_NI = ctx.saved_tensors
        return torch.ops.aten.silu_backward(gradient_NI * up_NI, gate_NI), gradient_NI * open_NI


@dataclass(frozen=True)
class Rectangle:
    """Says how attention reads some sequences, padded on the right to T positions, for each of their heads.

    `query_key_2F` and `value_F` are the rows to read; 0 for padding. `hidden_TT` is added to scores: minus
    infinity where the key comes after the query. Of what attention makes there, `place_R` is copied to `row_R` of
    the output: padding isn't, and what sequences have in common is only once.
    """

    hidden_TT: Tensor
    query_key_2F: Tensor
    value_F: Tensor
    place_R: Tensor
    row_R: Tensor


class Attended(Function):
    """Attends from each token to those of its own sequence up to itself, by plain matrix products.

    For up to `packed.LONGEST` positions they are faster than the fused kernel, whose backward pass is slow on a
    CPU, and what they keep, the weights, is small.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query_key_NAD: Tensor,
        value_NAD: Tensor,
        scale: float,
        rectangles: Sequence[Rectangle],
    ) -> Tensor:
        """Returns what each query head reads, (tokens that the rectangles write, heads * D)."""
        size, heads = value_NAD.shape[-1], query_key_NAD.shape[1] - value_NAD.shape[1]
        query_key_RD, value_RD = query_key_NAD.reshape(-1, size), value_NAD.reshape(-1, size)
        read_RD = value_RD.new_empty(sum(len(part.row_R) for part in rectangles), size)
        saved = []
        for part in rectangles:
            positions = len(part.hidden_TT)
            query_key = query_key_RD.index_select(0, part.query_key_2F).view(2, -1, positions, size)
            value = value_RD.index_select(0, part.value_F).view(-1, positions, size)
            query, key = query_key
            score = torch.baddbmm(part.hidden_TT, query, key.transpose(1, 2), alpha=scale)
            weight = score.softmax(-1)
            read_FD = torch.bmm(weight, value).view(-1, size)
            read_RD.index_copy_(0, part.row_R, read_FD.index_select(0, part.place_R))
            saved += [query_key, value, weight]
        ctx.save_for_backward(*saved)
        ctx.shapes, ctx.scale, ctx.rectangles = (query_key_NAD.shape, value_NAD.shape), scale, rectangles
        return read_RD.view(-1, heads * size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of queries, keys and values; a prompt's are the sums over its sequences."""
        size = ctx.shapes[1][-1]
        gradient_RD = gradient.reshape(-1, size)
        to_query_key, to_value = (gradient.new_zeros(shape).view(-1, size) for shape in ctx.shapes)
        for number, part in enumerate(ctx.rectangles):
            (query, key), value, weight = ctx.saved_tensors[3 * number : 3 * number + 3]
            own_FD = gradient_RD.new_zeros(len(part.value_F), size)
            own_FD.index_copy_(0, part.place_R, gradient_RD.index_select(0, part.row_R))
            own = own_FD.view_as(value)
            to_value.index_add_(0, part.value_F, torch.bmm(weight.transpose(1, 2), own).view(-1, size))
            to_weight = torch.bmm(own, value.transpose(1, 2))
            to_score = torch.ops.aten._softmax_backward_data(to_weight, weight, -1, weight.dtype)
            to_both = query.new_empty(2, *query.shape)
            torch.baddbmm(to_both[0], to_score, key, beta=0, alpha=ctx.scale, out=to_both[0])
            torch.baddbmm(to_both[1], to_score.transpose(1, 2), query, beta=0, alpha=ctx.scale, out=to_both[1])
            to_query_key.index_add_(0, part.query_key_2F, to_both.view(-1, size))
        return to_query_key.view(ctx.shapes[0]), to_value.view(ctx.shapes[1]), None, None
