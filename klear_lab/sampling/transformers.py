"""Samples with the policy's own model: no second copy of the weights, and one forward pass a token for all slots.

    while there are sequences without an end:
        fill free slots with waiting sequences: read each prompt once, draw first tokens    (a prefill)
        draw `read_every` tokens for each slot, without a look at them                      (decoding steps)
        read them; give ended sequences' slots back

What a slot draws after its sequence's end is thrown away, so no response depends on `read_every`. Nor does it
depend on the slots or the order of requests, but for rounding: sums in another order differ in their last bits.

Small models on a CPU read sequences that have drawn the same so far once (sampling/past.py). The decoding step
isn't captured as a CUDA graph: the columns that it attends to change with every token.

Shapes: B sequences in slots, P prompts, S decoding steps, T positions, V vocabulary.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from klear_lab.policy.model import Policy
from klear_lab.sampling.cache import SlotCache, check_cacheable, fill_holes
from klear_lab.sampling.draws import are_drawn_at_once, draw_tokens
from klear_lab.sampling.joined import JoinedStep
from klear_lab.sampling.one_token import step_of
from klear_lab.sampling.types import Request, Response, Sampling, Weights

# Steps between looks at what was drawn. A look makes an accelerator wait; on a CPU it is cheaper than junk.
READ_EVERY = {"cpu": 2}
READ_EVERY_ELSEWHERE = 16
PREFILL_TOKENS = 2**15  # bounds the memory of reading prompts


@dataclass
class Draft:
    """Holds a sequence while it is sampled."""

    prompt_ids: list[int]
    seed: int
    token_ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    stopped: bool = False

    def response(self) -> Response:
        """Returns the finished response."""
        return Response(self.token_ids, not self.stopped, torch.tensor(self.log_probs, dtype=torch.float32))


class TransformersSampler:
    """Samples from a policy by its own forward pass; see the module."""

    def __init__(self, policy: Policy, read_every: int | None = None) -> None:
        """Shares the policy's weights. Raises `ConfigError` for a model whose past it can't keep."""
        check_cacheable(policy.model)
        self.policy = policy
        self.read_every = read_every or READ_EVERY.get(policy.device.type, READ_EVERY_ELSEWHERE)
        self.cache: SlotCache | None = None

    def load(self, weights: Weights, version: int) -> None:
        """Does nothing: the weights are the policy's, and so always its newest."""

    def sleep(self) -> None:
        """Frees the cache, until the next `sample`."""
        self.cache = None

    def close(self) -> None:
        """Frees the cache."""
        self.sleep()

    def sample(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Response]]:
        """Returns a list of responses for each request, in the order of requests and seeds.

        Raises `FloatingPointError` for logits that are NaN.
        """
        groups = [[Draft(request.prompt_ids, seed) for seed in request.seeds] for request in requests]
        waiting = deque(draft for group in groups for draft in group)
        model, was_training = self.policy.model, self.policy.model.training
        slots = min(sampling.batch_sequences, len(waiting))
        if self.cache is None:
            self.cache = SlotCache(slots, self.policy.autocast_dtype)
        self.cache.clear(slots)
        model.eval()
        try:
            with torch.no_grad(), self.policy.autocast():
                Batch(self.policy, sampling, self.cache).finish(waiting, slots, self.read_every)
        finally:
            model.train(was_training)
        return [[draft.response() for draft in group] for group in groups]


class Batch:
    """Holds the sequences in slots: row b of each tensor belongs to `drafts[b]`.

    `drawn_B` counts the tokens drawn; the last of them is `token_B`, which the model hasn't read yet.
    """

    def __init__(self, policy: Policy, sampling: Sampling, cache: SlotCache) -> None:
        """Starts without any sequences, in an empty cache."""
        self.policy, self.sampling, self.cache = policy, sampling, cache
        self.stop = set(policy.stop_token_ids)
        self.step = step_of(policy.model)
        self.cache.shares = isinstance(self.step, JoinedStep)
        self.drafts: list[Draft] = []
        self.token_B, self.drawn_B, self.prompt_length_B, self.seed_B = self.integers([[], [], [], []])

    def integers(self, values: list[list[int]]) -> Tensor:
        """Returns integers on the policy's device."""
        return torch.tensor(values, dtype=torch.long, device=self.policy.device)

    def finish(self, waiting: deque[Draft], slots: int, read_every: int) -> None:
        """Samples all of `waiting` to their ends."""
        max_tokens = self.sampling.max_tokens
        while waiting or self.drafts:
            while waiting and len(self.drafts) < slots:
                self.admit(next_to_read(waiting, slots - len(self.drafts)), read_every)
            if not waiting:
                self.cache.slots = len(self.drafts)  # the last sequences may be long, and ended ones need no room
            if self.drafts:
                left = max(max_tokens - len(draft.token_ids) for draft in self.drafts)
                self.collect(*self.decode(min(read_every, left)))

    def admit(self, drafts: list[Draft], steps: int) -> None:
        """Reads the prompts of sequences, each once; gives them slots, and draws their first tokens."""
        prompts, prompt_of_sequence = distinct_prompts(drafts)
        input_ids_PT, mask_PT = flush_right(prompts, self.policy.pad_token_id, self.policy.device)
        read, logits_PV = read_prompts(self.policy.model, input_ids_PT, mask_PT)
        lengths = [len(prompt) for prompt in prompts]
        self.cache.admit(read, lengths, prompt_of_sequence, steps)
        prompt_B, seed_B = self.integers([prompt_of_sequence, [draft.seed for draft in drafts]])
        drawn_B = torch.zeros_like(seed_B)
        token_B, log_prob_B = self.draw(logits_PV[prompt_B], seed_B, drawn_B)
        self.drafts += drafts
        self.token_B = torch.cat([self.token_B, token_B])
        self.drawn_B = torch.cat([self.drawn_B, drawn_B + 1])
        self.prompt_length_B = torch.cat([self.prompt_length_B, mask_PT.sum(1)[prompt_B]])
        self.seed_B = torch.cat([self.seed_B, seed_B])
        self.collect(token_B[:, None], log_prob_B[:, None])

    def decode(self, steps: int) -> tuple[Tensor, Tensor]:
        """Draws `steps` more tokens for each slot; returns them and their log-probabilities, both (B, steps)."""
        self.cache.make_room(0, steps)
        # Beyond its limit a sequence is junk, but the model may have no such position.
        read_BS = self.drawn_B[:, None] + torch.arange(steps, device=self.drawn_B.device)
        position_BS = self.prompt_length_B[:, None] + read_BS.clamp(max=self.sampling.max_tokens) - 1
        if isinstance(self.step, JoinedStep) and self.draws_plainly():
            now = self.token_B, position_BS, self.seed_B, self.drawn_B
            tokens_BS, log_probs_BS = self.step.draw_several(*now, self.cache)
            self.token_B, self.drawn_B = tokens_BS[:, -1], self.drawn_B + steps
            return tokens_BS, log_probs_BS
        tokens, log_probs = [], []
        for position_B in position_BS.unbind(1):
            logits_BV = self.step(self.token_B, position_B, self.cache)
            self.cache.advance()
            self.token_B, log_prob_B = self.draw(logits_BV, self.seed_B, self.drawn_B)
            self.drawn_B = self.drawn_B + 1
            tokens.append(self.token_B)
            log_probs.append(log_prob_B)
        return torch.stack(tokens, 1), torch.stack(log_probs, 1)

    def draws_plainly(self) -> bool:
        """Tells whether tokens are drawn from all words at temperature 1, and for all slots at once."""
        rows, vocabulary = len(self.drafts), self.policy.model.config.vocab_size
        is_plain = self.sampling.temperature == 1 and self.sampling.top_p == 1
        return is_plain and are_drawn_at_once(rows, vocabulary, self.policy.device)

    def draw(self, logits_BV: Tensor, seed_B: Tensor, position_B: Tensor) -> tuple[Tensor, Tensor]:
        """Draws tokens as `sampling` says; returns them with their log-probabilities."""
        return draw_tokens(logits_BV, seed_B, position_B, self.sampling.temperature, self.sampling.top_p)

    def collect(self, tokens_BT: Tensor, log_probs_BT: Tensor) -> None:
        """Reads what the last slots have drawn, and gives up the slots of sequences that have ended."""
        rows = zip(tokens_BT.tolist(), log_probs_BT.tolist(), strict=True)
        new = len(self.drafts) - len(tokens_BT)
        live = [*range(new)]
        for row, (token_ids, log_probs) in enumerate(rows, start=new):
            if not self.extend(self.drafts[row], token_ids, log_probs):
                live.append(row)
        if len(live) == len(self.drafts):
            return
        order = fill_holes(live)
        self.cache.keep(order)
        self.drafts = [self.drafts[row] for row in order]
        (order_B,) = self.integers([order])
        self.token_B, self.drawn_B = self.token_B[order_B], self.drawn_B[order_B]
        self.prompt_length_B, self.seed_B = self.prompt_length_B[order_B], self.seed_B[order_B]

    def extend(self, draft: Draft, token_ids: list[int], log_probs: list[float]) -> bool:
        """Adds tokens to a sequence up to its end; tells whether that has come."""
        room = self.sampling.max_tokens - len(draft.token_ids)
        # most often; token by token this was a twelfth of sampling
        if len(token_ids) < room and self.stop.isdisjoint(token_ids) and not math.isnan(sum(log_probs)):
            draft.token_ids += token_ids
            draft.log_probs += log_probs
            return False
        for token, log_prob in zip(token_ids, log_probs, strict=True):
            if math.isnan(log_prob):
                raise FloatingPointError(
                    f"the model's logits are NaN at token {len(draft.token_ids)} of a response; "
                    "are its weights finite?"
                )
            draft.token_ids.append(token)
            draft.log_probs.append(log_prob)
            draft.stopped = token in self.stop
            if draft.stopped or len(draft.token_ids) == self.sampling.max_tokens:
                return True
        return False


def read_prompts(model: PreTrainedModel, input_ids_PT: Tensor, mask_PT: Tensor) -> tuple[DynamicCache, Tensor]:
    """Reads prompts that lie flush right; returns their keys and values, and the next token's logits, (P, V)."""
    read = DynamicCache()
    logits_P1V = model(
        input_ids=input_ids_PT,
        attention_mask=mask_PT,
        position_ids=(mask_PT.cumsum(1) - 1).clamp(min=0),
        past_key_values=read,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return read, logits_P1V[:, -1]


def next_to_read(waiting: deque[Draft], slots: int) -> list[Draft]:
    """Takes from `waiting` as many as there are slots, or fewer where their prompts hold too many tokens."""
    taken: list[Draft] = []
    prompts, longest = 0, 0
    while waiting and len(taken) < slots:
        draft = waiting[0]
        prompts += not taken or draft.prompt_ids != taken[-1].prompt_ids
        longest = max(longest, len(draft.prompt_ids))
        if taken and prompts * longest > PREFILL_TOKENS:
            break
        taken.append(waiting.popleft())
    return taken


def distinct_prompts(drafts: list[Draft]) -> tuple[list[list[int]], list[int]]:
    """Returns the prompts, once where several follow each other, and the number of each sequence's prompt."""
    prompts: list[list[int]] = []
    prompt_of_sequence = []
    for draft in drafts:
        if not prompts or draft.prompt_ids != prompts[-1]:
            prompts.append(draft.prompt_ids)
        prompt_of_sequence.append(len(prompts) - 1)
    return prompts, prompt_of_sequence


def flush_right(prompts: list[list[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns token ids and attention mask, both (P, T), prompts flush right: all continue at one position."""
    longest = max(map(len, prompts))
    input_ids_PT = torch.full((len(prompts), longest), pad_id)
    mask_PT = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        input_ids_PT[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask_PT[row, longest - len(prompt) :] = 1
    return input_ids_PT.to(device), mask_PT.to(device)
