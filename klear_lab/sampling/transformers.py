"""Sampling: responses to prompts, in batches, with common random numbers.

Each sequence owns one uniform number for each token, drawn beforehand and inverted through the cumulative
distribution. So two arms with the same seed sample the same text as long as their policies agree, whatever
the batch size, and a resumed run needs no generator state.

The model reads each prompt once and repeats its cache for the group; finished sequences leave the batch.

Shapes: B sequences in the batch, T positions, V vocabulary.
"""

import hashlib

import torch
from torch import Tensor
from transformers import DynamicCache

from klear_lab.policy.model import Policy
from klear_lab.sampling.types import Response, Sampling


def sample_responses(
    policy: Policy, prompts: list[list[int]], sampling: Sampling, seed: str
) -> list[list[Response]]:
    """Samples `sampling.samples` responses to each prompt; returns a list for each, in the order of the prompts.

    Prompts are token ids. `seed` names the random numbers, e.g. "3-rollout-17".
    """
    samples = sampling.samples
    per_batch = max(1, sampling.batch_sequences // samples)
    uniforms = draw_uniforms(seed, len(prompts) * samples, sampling.max_tokens)
    was_training = policy.model.training
    policy.model.eval()
    responses: list[Response] = []
    with torch.no_grad(), policy.autocast():
        for start in range(0, len(prompts), per_batch):
            chosen = prompts[start : start + per_batch]
            uniform_BT = uniforms[start * samples : (start + len(chosen)) * samples].to(policy.device)
            responses += sample_batch(policy, chosen, sampling, uniform_BT)
    policy.model.train(was_training)
    return [responses[i : i + samples] for i in range(0, len(responses), samples)]


def draw_uniforms(seed: str, sequences: int, max_tokens: int) -> Tensor:
    """Draws a number in [0, 1) for each token, shape (sequences, max_tokens); the same on every device."""
    generator = torch.Generator().manual_seed(stable_seed(seed))
    return torch.rand(sequences, max_tokens, generator=generator)


def stable_seed(name: str) -> int:
    """Returns a 63-bit seed made from a name, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def sample_batch(
    policy: Policy, prompts: list[list[int]], sampling: Sampling, uniform_BT: Tensor
) -> list[Response]:
    """Samples until every sequence has stopped or used up its uniform numbers, of shape (B, max_tokens)."""
    device, samples, max_tokens = policy.device, sampling.samples, uniform_BT.shape[1]
    input_ids_BT, mask_BT = left_pad(prompts, policy.pad_token_id, device)
    cache = DynamicCache()
    position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    output = policy.model(
        input_ids=input_ids_BT,
        attention_mask=mask_BT,
        position_ids=position_BT,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(samples)
    logits_BV = output.logits[:, -1].float().repeat_interleave(samples, dim=0)
    mask_BT = mask_BT.repeat_interleave(samples, dim=0)
    next_position_B = position_BT[:, -1].repeat_interleave(samples) + 1
    stop_ids = torch.tensor(policy.stop_token_ids, device=device)

    tokens_BT = torch.zeros(len(uniform_BT), max_tokens, dtype=torch.long, device=device)
    length_B = torch.full((len(uniform_BT),), max_tokens, device=device)
    truncated_B = torch.ones(len(uniform_BT), dtype=torch.bool, device=device)
    live = torch.arange(len(uniform_BT), device=device)  # rows of the whole batch that still run
    for t in range(max_tokens):
        token_B = draw_tokens(logits_BV, uniform_BT[live, t], sampling.temperature, sampling.top_p)
        tokens_BT[live, t] = token_B
        stopped_B = torch.isin(token_B, stop_ids)
        length_B[live[stopped_B]] = t + 1
        truncated_B[live[stopped_B]] = False
        if t == max_tokens - 1 or bool(stopped_B.all()):
            break
        if bool(stopped_B.any()):
            keep = (~stopped_B).nonzero()[:, 0]
            cache.batch_select_indices(keep)
            live, token_B, next_position_B = live[keep], token_B[keep], next_position_B[keep]
            mask_BT = mask_BT[keep]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(live), 1)], dim=1)
        output = policy.model(
            input_ids=token_B[:, None],
            attention_mask=mask_BT,
            position_ids=next_position_B[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        logits_BV = output.logits[:, -1].float()
        next_position_B = next_position_B + 1
    rows = zip(tokens_BT.tolist(), length_B.tolist(), truncated_B.tolist(), strict=True)
    return [Response(tokens[:length], truncated) for tokens, length, truncated in rows]


def left_pad(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns token ids and attention mask, both (B, T), prompts flush right: all continue at one position."""
    longest = max(map(len, prompts))
    input_ids_BT = torch.full((len(prompts), longest), pad_id)
    mask_BT = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids_BT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, longest - len(prompt) :] = 1
    return input_ids_BT.to(device), mask_BT.to(device)


def draw_tokens(logits_BV: Tensor, uniform_B: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draws a token for each row, shape (B,), from the smallest set whose probability reaches `top_p`.

    A `temperature` of 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits_BV.argmax(-1)
    probability_BV = (logits_BV / temperature).softmax(-1)
    if top_p == 1:
        return invert(probability_BV, uniform_B)
    sorted_BV, order_BV = torch.sort(probability_BV, dim=-1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(-1) - sorted_BV
    nucleus_BV = sorted_BV.masked_fill(before_BV >= top_p, 0.0)
    nucleus_BV[:, 0] = sorted_BV[:, 0]
    return order_BV.gather(1, invert(nucleus_BV, uniform_B)[:, None])[:, 0]


def invert(weight_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Returns the index whose stretch of the cumulative weight holds uniform * total, shape (B,).

    It is never one of weight 0.
    """
    cumulative_BV = weight_BV.cumsum(-1)
    total_B = cumulative_BV[:, -1]
    # A product that rounds up to the total would point behind the last token.
    below_total_B = torch.nextafter(total_B, torch.zeros_like(total_B))
    target_B = torch.minimum(uniform_B * total_B, below_total_B)
    return torch.searchsorted(cumulative_BV, target_B[:, None], right=True)[:, 0]
