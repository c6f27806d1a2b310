"""The output head of a model in float32, a part at a time, so that the logits of all tokens never exist at once.

    logits = cap * tanh(scale * head(hidden) / cap) / temperature             (without a cap: scale * head(hidden))

Both passes take a chunk of the vocabulary at a time, for all tokens. The forward pass keeps each token's
highest logit and sum of exponentials, from which the backward pass makes the probabilities again. Chunks of tokens
would each read the whole weight and add to its whole gradient, which is slow, and in bfloat16 drifts.

Shapes: N tokens, H hidden size, V vocabulary, C vocabulary entries of a chunk.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALL = 2**21  # logits that are one chunk, and are kept for the backward pass: 8 MiB of float32
LARGE = 2**27  # logits of the largest chunk, 512 MiB; larger products are no faster
CHUNKS = 32  # two chunks of logits exist at once: 8 V / 32 = 0.25 V bytes a token


def chunked_log_probs(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    bias_V: Tensor | None,
    target_N: Tensor,
    *,
    temperature: float = 1.0,
    scale: float = 1.0,
    cap: float | None = None,
    chunks: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns log_prob_N of the targets, with gradient, and entropy_N in nats, without.

    Both are float32, or float64 for a weight in it. `chunks` is into how many the logits are cut.
    """
    inner = scale / (cap or temperature)
    outer = cap / temperature if cap else None
    chunks = chunks or count_chunks(len(target_N) * len(weight_VH))
    log_prob_N, entropy_N = ChunkedHead.apply(hidden_NH, weight_VH, bias_V, target_N, inner, outer, chunks)
    return log_prob_N, entropy_N


def count_chunks(logits: int) -> int:
    """Returns into how many chunks to cut so many logits."""
    return max(1, min(CHUNKS, logits // SMALL), -(-logits // LARGE))


class ChunkedHead(torch.autograd.Function):
    """Computes log-probability and entropy for the logits outer * tanh(inner * head), or inner * head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        target_N: Tensor,
        inner: float,
        outer: float | None,
        chunks: int,
    ) -> tuple[Tensor, Tensor]:
        """Returns log_prob_N and entropy_N; see `chunked_log_probs`."""
        scaled_NH = in_full(hidden_NH, weight_VH, inner)
        target_logit_N, sum_N, weighted_N = scaled_NH.new_zeros(3, len(target_N)).unbind()
        highest_N = torch.full_like(sum_N, torch.finfo(sum_N.dtype).min)
        product_NC = None
        for part in parts(len(weight_VH), chunks):
            product_NC = head_product(scaled_NH, weight_VH[part], of_part(bias_V, part), inner)
            logits_NC = product_NC if outer is None else product_NC.tanh().mul_(outer)
            if chunks > 1:
                product_NC = None  # so that two chunks are in memory, and not three
            inside_N, column_N = find_targets(target_N, part)
            target_logit_N += torch.where(inside_N, logits_NC.gather(1, column_N[:, None])[:, 0], 0)
            # sum and weighted sum, over the chunks until now, of exp(x) and of x exp(x), where x = logit - highest
            shift_N = highest_N - (highest_N := torch.maximum(highest_N, logits_NC.amax(1)))
            logits_NC = logits_NC - highest_N[:, None]
            exp_NC = logits_NC.exp()
            weighted_N = shift_N.exp() * (weighted_N + shift_N * sum_N)
            sum_N = shift_N.exp() * sum_N + exp_NC.sum(1)
            weighted_N += exp_NC.mul_(logits_NC).nansum(1)  # 0 * -inf of a token that can't come is no number
            del logits_NC, exp_NC  # before the next chunk's are made
        log_prob_N = (
            target_logit_N - highest_N - sum_N.log()
        )  # in this order: the likeliest token's loses no digits
        entropy_N = sum_N.log() - weighted_N / sum_N
        ctx.save_for_backward(hidden_NH, weight_VH, bias_V, target_N, highest_N, sum_N, product_NC)
        ctx.inner, ctx.outer, ctx.chunks = inner, outer, chunks
        ctx.mark_non_differentiable(entropy_N)
        return log_prob_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradients of hidden states, weight and bias."""
        hidden_NH, weight_VH, bias_V, target_N, highest_N, sum_N, kept_NV = ctx.saved_tensors
        inner, outer = ctx.inner, ctx.outer
        scaled_NH = in_full(hidden_NH, weight_VH, inner)
        for_hidden_NH = torch.zeros_like(scaled_NH)
        for_weight_VH = scaled_NH.new_empty(weight_VH.shape) if ctx.needs_input_grad[1] else None
        for_bias_V = scaled_NH.new_empty(bias_V.shape) if ctx.needs_input_grad[2] else None
        for part in parts(len(weight_VH), ctx.chunks):
            product_NC = kept_NV
            if product_NC is None:
                product_NC = head_product(scaled_NH, weight_VH[part], of_part(bias_V, part), inner)
            slope_NC = None
            if outer is None:
                grad_NC = product_NC - highest_N[:, None]
            else:
                grad_NC = product_NC.tanh()
                del product_NC
                slope_NC = grad_NC.square().neg_().add_(1).mul_(outer)
                grad_NC.mul_(outer).sub_(highest_N[:, None])
            grad_NC.exp_().mul_((-grad_N / sum_N)[:, None])
            inside_N, column_N = find_targets(target_N, part)
            grad_NC.scatter_add_(1, column_N[:, None], torch.where(inside_N, grad_N, 0)[:, None])
            if slope_NC is not None:
                grad_NC.mul_(slope_NC)
            with no_autocast(grad_NC):
                for_hidden_NH.addmm_(grad_NC, in_full(weight_VH[part], weight_VH), alpha=inner)
                if for_weight_VH is not None:
                    torch.mm(grad_NC.T, scaled_NH, out=for_weight_VH[part])
            if for_bias_V is not None:
                for_bias_V[part] = grad_NC.sum(0) * inner
            product_NC = grad_NC = slope_NC = None  # before the next chunk's are made
        grads = (for_hidden_NH, for_weight_VH, for_bias_V)
        inputs = (hidden_NH, weight_VH, bias_V)
        return *(None if g is None else g.to(x.dtype) for g, x in zip(grads, inputs, strict=True)), *[None] * 4


def head_product(scaled_NH: Tensor, weight_CH: Tensor, bias_C: Tensor | None, scale: float) -> Tensor:
    """Returns the logits of hidden states that `scale` has multiplied already, whatever the autocast is."""
    weight_HC = in_full(weight_CH, weight_CH).T
    with no_autocast(scaled_NH):
        if bias_C is None:
            return scaled_NH @ weight_HC
        return torch.addmm(in_full(bias_C, weight_CH), scaled_NH, weight_HC, beta=scale)


def find_targets(target_N: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """Tells which targets lie in a part of the vocabulary, and in which column; for others, any column of it."""
    inside_N = (target_N >= part.start) & (target_N < part.stop)
    return inside_N, (target_N - part.start).clamp(0, part.stop - part.start - 1)


def of_part(bias_V: Tensor | None, part: slice) -> Tensor | None:
    """Returns the bias of a part of the vocabulary, where there is one."""
    return None if bias_V is None else bias_V[part]


def in_full(tensor: Tensor, weight: Tensor, scale: float = 1.0) -> Tensor:
    """Returns scale * tensor in float32, or in float64 for a weight in it; no copy where nothing changes."""
    tensor = tensor.to(torch.promote_types(torch.float32, weight.dtype))
    return tensor if scale == 1 else tensor * scale


def no_autocast(tensor: Tensor) -> torch.autocast:
    """Returns a context in which products keep the precision of their operands."""
    return torch.autocast(tensor.device.type, enabled=False)


def parts(length: int, count: int) -> Iterator[slice]:
    """Yields at most `count` slices of equal size that cover `length`; the last may be shorter."""
    size = max(1, -(-length // count))
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))
