"""Log-probabilities of responses under a policy, for SFT and RL alike.

Padding is on the right, where causal attention never looks, so it needs no mask and can't change a result. Short
sequences are read without it where that is faster (policy/packed.py). The results are flat, response tokens only,
so that no caller can forget a mask.

Shapes: B sequences, T positions, H hidden size, V vocabulary, N response tokens of all sequences in order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from klear_lab.policy.chunked_head import chunked_log_probs
from klear_lab.policy.micro_batches import S, Tokenized, full_micro_batches, length, micro_batches
from klear_lab.policy.model import Policy
from klear_lab.policy.output_head import OutputHead, hidden_states, output_head
from klear_lab.policy.packed import packed_hidden_states, reads_packed, tree_of


def response_log_probs(
    policy: Policy, sequences: Sequence[Tokenized], temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Returns log_prob_N of the response tokens, with gradient, and entropy_N in nats, without.

    Both are float32, or float64 for a model in it; `temperature` divides the logits.
    """
    head = output_head(policy.model)
    if head is not None and reads_packed(policy, max(map(length, sequences))):
        tree = tree_of(policy.model, sequences)
        found = head_log_probs(head, packed_hidden_states(policy.model, tree), tree.target_Q, temperature)
        log_prob_N, entropy_N = (x.index_select(0, tree.pair_P) for x in found)
        return log_prob_N, entropy_N
    targets = [token for s in sequences for token in s.response_ids]
    target_N = torch.tensor(targets, dtype=torch.long, device=policy.device)
    if head is None:
        return plain_log_probs(response_logits(policy, sequences), target_N, temperature)
    return head_log_probs(head, padded_hidden_states(policy, head, sequences), target_N, temperature)


def head_log_probs(
    head: OutputHead, hidden_NH: Tensor, target_N: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Returns log_prob_N of targets and entropy_N from what the model gives to its head."""
    return chunked_log_probs(
        hidden_NH,
        head.linear.weight,
        head.linear.bias,
        target_N,
        temperature=temperature,
        scale=head.scale,
        cap=head.cap,
    )


def cut_for(
    policy: Policy, sequences: Sequence[S], most_sequences: int, most_tokens: int | None = None
) -> list[list[S]]:
    """Cuts sequences into the micro-batches that the policy reads fastest, within limits as of `micro_batches`."""
    packed = reads_packed(policy, max(map(length, sequences), default=0))
    return (full_micro_batches if packed else micro_batches)(sequences, most_sequences, most_tokens)


def padded_hidden_states(policy: Policy, head: OutputHead, sequences: Sequence[Tokenized]) -> Tensor:
    """Returns what the model's own forward pass gives to its head for each response token, hidden_NH."""
    input_ids_BT, predicts_BT = right_pad(sequences, policy.pad_token_id)
    with policy.autocast():
        hidden_BTH = hidden_states(policy.model, head, input_ids_BT.to(policy.device))
    return hidden_BTH[predicts_BT.to(policy.device)]


def response_logits(policy: Policy, sequences: Sequence[Tokenized]) -> Tensor:
    """Returns the model's own logits_NV of all response tokens."""
    input_ids_BT, predicts_BT = right_pad(sequences, policy.pad_token_id)
    # Logits start where the shortest prompt ends, since with a real vocabulary they take most of the memory.
    kept = input_ids_BT.shape[1] - min(len(s.prompt_ids) for s in sequences) + 1
    with policy.autocast():
        logits_BTV = policy.model(
            input_ids=input_ids_BT.to(policy.device), use_cache=False, logits_to_keep=kept
        ).logits
    return logits_BTV[predicts_BT[:, -kept:].to(policy.device)]


def plain_log_probs(logits_NV: Tensor, target_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Returns log_prob_N of the targets and entropy_N, from all logits at once."""
    logits_NV = logits_NV.to(torch.promote_types(torch.float32, logits_NV.dtype))
    log_probs_NV = (logits_NV / temperature).log_softmax(-1)
    rows = log_probs_NV.detach().split(1024)  # since entropies need two more copies
    entropy_N = torch.cat([-(row.exp() * row).nansum(-1) for row in rows])
    return log_probs_NV.gather(1, target_N[:, None])[:, 0], entropy_N


def right_pad(sequences: Sequence[Tokenized], pad_id: int) -> tuple[Tensor, Tensor]:
    """Returns token ids and a mask of the positions whose logits predict a response token, both (B, T)."""
    longest = max(map(length, sequences))
    input_ids_BT = torch.full((len(sequences), longest), pad_id)
    predicts_BT = torch.zeros(len(sequences), longest, dtype=torch.bool)
    for row, s in enumerate(sequences):
        ids = [*s.prompt_ids, *s.response_ids]
        input_ids_BT[row, : len(ids)] = torch.tensor(ids)
        predicts_BT[row, len(s.prompt_ids) - 1 : len(ids) - 1] = True
    return input_ids_BT, predicts_BT
