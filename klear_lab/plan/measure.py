"""How much memory a pass of a model takes, found by running it on tensors that have no content.

Tensors of PyTorch's fake mode have a shape, a type and a lifetime, but no numbers: a pass of a model of any size
takes seconds and next to no memory, and every operation's result is counted. So the figures are those of the
architecture's own code, whatever it saves, casts or computes again, and not a formula's. Where all layers are
alike, copies of the model with two and three layers give the figures for all.

Fake tensors are a CPU's here. A GPU's kernels keep the same tensors for the backward pass; what they need while
they run, and the holes that CUDA's allocator leaves, is what cards.py keeps a part of the card free for.

Shapes: B sequences, T positions, H hidden size, N response tokens, P prompts, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedConfig, PreTrainedModel, masking_utils
from transformers.integrations import moe

from klear_lab.config import ConfigError
from klear_lab.plan.live_memory import LiveMemory
from klear_lab.plan.model_size import Hidden, as_key, layers_alike, with_layers, without_content
from klear_lab.policy.chunked_head import chunked_log_probs
from klear_lab.policy.forward_checks import FORWARD_ERRORS, in_short, silence_dropout
from klear_lab.policy.output_head import OutputHead, hidden_states
from klear_lab.policy.packed import LONGEST, can_be_packed, packed_hidden_states, tree_of
from klear_lab.sampling.cache import SlotCache, states_of
from klear_lab.sampling.one_token import step_of
from klear_lab.sampling.transformers import read_prompts
from klear_lab.sft import Example

FEW, MORE = 2, 3  # layers of the copies that are measured
# Drawing tokens (sampling/draws.py) isn't run, since it keeps what it makes: seven arrays of four bytes a logit.
DRAWING_BYTES, DRAWN_AT_ONCE = 28, 2**25


@dataclass(frozen=True)
class Method:
    """Says what changes a pass's memory beside its shape; `lora` is the rank of adapters.

    `packs` means that short sequences are read packed, as our own training does on a CPU.
    """

    bfloat16: bool
    checkpointing: bool = False
    lora: int | None = None
    packs: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns the precision context of a forward pass."""
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.bfloat16 else nullcontext()


@dataclass(frozen=True)
class TrainingPass:
    """Holds the bytes of a training pass at its peak, beside weights, gradients and optimizer.

    Between forward and backward pass, `activations` are kept, and `copies` of weights that autocast has cast;
    `forward` and `backward` are the most bytes at once in each pass, the output head's counted to the latter.
    """

    activations: int
    copies: int
    forward: int
    backward: int

    @property
    def rest(self) -> int:
        """Returns what else there is when most is: chunks of the output head, its gradient, one layer's own."""
        return max(self.forward, self.backward) - self.activations - self.copies


@dataclass(frozen=True)
class SamplingPass:
    """Holds the bytes of sampling beside the weights: cast ones, a token's in the cache, and each pass's own."""

    copies: int
    cache_token: int
    prefill: int
    decode: int


P = TypeVar("P", TrainingPass, SamplingPass)


def training_pass(config: PreTrainedConfig, method: Method, sequences: int, positions: int) -> TrainingPass:
    """Measures the pass of a micro-batch, forward and backward, all of whose tokens are of responses."""
    return kept_training(as_key(config), method, sequences, positions, Hidden(config))


@lru_cache(maxsize=1024)
def kept_training(key: str, method: Method, sequences: int, positions: int, hidden: Hidden) -> TrainingPass:
    """Measures as `training_pass` does, once for each model and shape."""
    return by_layers(hidden.config, lambda part: run_training(part, method, sequences, positions))


def sampling_pass(
    config: PreTrainedConfig, method: Method, prompts: int, positions: int, rows: int, steps: int
) -> SamplingPass:
    """Measures reading `prompts` of some positions, and a decoding step of `rows` after `steps` more tokens."""
    return kept_sampling(as_key(config), method, prompts, positions, rows, steps, Hidden(config))


@lru_cache(maxsize=1024)
def kept_sampling(
    key: str, method: Method, prompts: int, positions: int, rows: int, steps: int, hidden: Hidden
) -> SamplingPass:
    """Measures as `sampling_pass` does, once for each model and shape."""
    return by_layers(hidden.config, lambda part: run_sampling(part, method, prompts, positions, rows, steps))


def by_layers(config: PreTrainedConfig, measure: Callable[[PreTrainedConfig], P]) -> P:
    """Measures a model, by copies with few layers where that is enough: each more adds the same."""
    layers = config.get_text_config(decoder=True).num_hidden_layers
    if layers <= MORE or not layers_alike(without_content(config)):
        return measure(config)
    few, more = measure(with_layers(config, FEW)), measure(with_layers(config, MORE))
    values = {}
    for field in fields(few):
        low, high = getattr(few, field.name), getattr(more, field.name)
        values[field.name] = high + (high - low) * (layers - MORE) // (MORE - FEW)
    return type(few)(**values)


def run_training(config: PreTrainedConfig, method: Method, sequences: int, positions: int) -> TrainingPass:
    """Runs `policy.log_probs` and its backward pass without content."""
    with fake_model(config, method) as model:
        trained = [p for p in model.parameters() if p.requires_grad]
        for parameter in trained:
            parameter.grad = torch.empty_like(parameter)  # of the micro-batches before
        known = [*model.parameters(), *model.buffers(), *(p.grad for p in trained if p.grad is not None)]
        head: Any = model.get_output_embeddings()
        input_ids_BT = torch.zeros(sequences, positions, dtype=torch.long)
        packed = method.packs and not method.bfloat16 and positions <= LONGEST and can_be_packed(model)
        with LiveMemory(known) as memory:
            if packed:
                examples = apart(sequences, positions, len(head.weight))
                hidden_NH = packed_hidden_states(model, tree_of(model, examples))
            else:
                with method.autocast():
                    hidden_NH = hidden_states(model, OutputHead(head, 1.0, None), input_ids_BT).flatten(0, 1)
            held, copies = memory.look()  # behind autocast, which has its casts forgotten then
            forward, memory.peak = memory.peak, held
            log_prob_N, _ = chunked_log_probs(hidden_NH, head.weight, head.bias, input_ids_BT.flatten())
            del hidden_NH
            log_prob_N.sum().backward()
        return TrainingPass(held - copies, copies, forward, memory.peak)


def apart(sequences: int, positions: int, vocabulary: int) -> list[Example]:
    """Returns sequences that have no prefix in common, and as many distinct tokens as there can be."""
    response = [position % vocabulary for position in range(positions)]
    return [Example([number], response) for number in range(sequences)]


def run_sampling(
    config: PreTrainedConfig, method: Method, prompts: int, positions: int, rows: int, steps: int
) -> SamplingPass:
    """Runs a prefill and a decoding step of `sampling.transformers` without content."""
    with fake_model(config, method) as model, torch.no_grad(), method.autocast():
        model.eval()
        known = [*model.parameters(), *model.buffers()]
        mask_PT = torch.ones(prompts, positions, dtype=torch.long)
        with LiveMemory(known) as memory:
            read, logits_PV = read_prompts(model, torch.zeros_like(mask_PT), mask_PT)
            del logits_PV
            _, copies = memory.look()
        prefill = memory.peak - copies
        states = [state for layer in read.layers for state in states_of(layer)]
        cache = SlotCache(rows, torch.bfloat16 if method.bfloat16 else None)
        cache.admit(read, [positions] * prompts, [row % prompts for row in range(rows)], steps)
        room = [tensor for layer in cache.rooms for tensor in layer.room]
        cache_token = sum(tensor.element_size() * tensor.shape[1] * tensor.shape[3] for tensor in room)
        cache.columns.end += steps - 1
        token_B = torch.zeros(rows, dtype=torch.long)
        casts = {key for key, one in memory.counted.items() if one.cast}
        with LiveMemory([*known, *states, *room]) as memory:
            memory.known |= casts
            logits_BV = step_of(model)(token_B, token_B, cache)
            memory.look()
            vocabulary = logits_BV.shape[1]
    drawing = DRAWING_BYTES * min(rows * vocabulary, DRAWN_AT_ONCE)
    return SamplingPass(copies, cache_token, prefill, memory.peak + drawing)


@contextmanager
def fake_model(config: PreTrainedConfig, method: Method) -> Iterator[PreTrainedModel]:
    """Yields a model without content, as `policy.model.finish` prepares it for training.

    Raises `ConfigError` for one whose code needs to read what tensors hold.
    """
    model = without_content(config, method.lora)
    silence_dropout(model)
    if method.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), eager_choices():
            give_lifetimes(model)
            yield model
    except ConfigError:
        raise
    except FORWARD_ERRORS as error:
        why = f"a model of type {config.model_type} can't be run without content ({in_short(error)})"
        raise ConfigError(f"model.path: {why}, so there is no plan for it") from error


def give_lifetimes(model: PreTrainedModel) -> None:
    """Puts fake tensors in the place of a model's meta ones; within the fake mode, they seem to lie on a CPU."""
    made: dict[int, Tensor] = {}  # tied weights stay one

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            is_weight = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
        return made[id(tensor)]

    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = fake(tensor)  # type: ignore[assignment]


@contextmanager
def eager_choices() -> Iterator[None]:
    """Lets transformers choose as for real tensors where it would read a fake one's content.

    It looks into position ids for sequences packed into one row, of which there are none here, and takes another
    product of experts where it believes that it is compiled; both keep the same tensors.
    """
    with (
        patch.object(masking_utils, "find_packed_sequence_indices", lambda position_ids: None),
        patch.object(moe, "_can_use_grouped_mm", lambda *_: False),
    ):
        yield
