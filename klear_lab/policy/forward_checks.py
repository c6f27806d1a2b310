"""Checks of a model by running it: does it do what sampling, training and their agreement rest on?

A tiny forward pass shows what no name of an architecture does: that a token's logits depend on earlier tokens
alone, that decoding with a cache gives the logits of the whole text, and that nothing is random in training mode.
The checks use no random numbers that anything else uses.

Shapes: B sequences, T positions, V vocabulary.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

TOKENS = 12
PROMPTS = (8, 5)  # tokens of the prompts whose continuation is decoded with a cache
# Of the spread of the logits: rounding differs by 1e-5 of it, and what a check is for by more than 1e-3.
TOLERANCE = 2e-4
ATTENTION = {"full_attention", "sliding_attention"}
RATES = re.compile(r"dropout|pdrop|layerdrop|drop_(prob|path|rate)|jitter")
FORWARD_ERRORS = (
    *(RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError, ImportError),
)


def layers_problem(model: PreTrainedModel) -> str | None:
    """Returns which layers keep something else of the past than keys and values of all tokens, None for none.

    A short text, as `forward_problem` takes it, doesn't show all of them: attention in chunks forgets later.
    """
    config = model.config.get_text_config(decoder=True)
    kinds = set(getattr(config, "layer_types", None) or []) - ATTENTION
    if not kinds and not model._is_stateful:
        return None
    why = f"has layers of {', '.join(sorted(kinds))}" if kinds else "carries a recurrent state"
    return (
        f"a model of type {config.model_type} {why}, so its past is not one key and value a token, as the sampler "
        "keeps it; take a model of full or sliding attention"
    )


def forward_problem(model: PreTrainedModel) -> str | None:
    """Returns what makes a model unfit for training here, None for nothing. Leaves it in the mode that it was in.

    Where dropout rates are read from the model's config, it sets them to 0.
    """
    was_training = model.training
    tokens_T = example_tokens(model)
    try:
        with torch.no_grad(), own_random_numbers(model.device):
            return first_problem(model, tokens_T)
    except torch.OutOfMemoryError:
        raise
    except FORWARD_ERRORS as error:
        return f"it can't be run as a causal language model ({in_short(error)})"
    finally:
        model.train(was_training)


def in_short(error: Exception) -> str:
    """Returns the kind of an error and the beginning of its message, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def first_problem(model: PreTrainedModel, tokens_T: Tensor) -> str | None:
    """Returns the first problem that is found: order, then randomness, then the cache."""
    model.eval()
    whole_TV = logits(model, tokens_T[None])[0]
    if not torch.isfinite(whole_TV).all():
        return "its logits aren't finite in float32, even for a short text"
    scale = (whole_TV.amax(-1) - whole_TV.amin(-1)).max().item()
    cut, pad = TOKENS // 2, tokens_T.new_full((TOKENS,), int(tokens_T[0]))
    changed_BT = torch.stack([tokens_T, torch.cat([tokens_T[:cut], pad[cut:]])])
    changed_BTV = logits(model, changed_BT)
    if differs(changed_BTV[1, :cut], whole_TV[:cut], scale):
        return "the logits of a token change with tokens behind it, so it isn't a causal language model"
    if random := randomness(model, tokens_T, whole_TV, scale):
        return random
    model.eval()
    return cache_problem(model, tokens_T, whole_TV, scale)


def cache_problem(model: PreTrainedModel, tokens_T: Tensor, whole_TV: Tensor, scale: float) -> str | None:
    """Returns what keeps a model from being sampled token by token as it is trained on whole texts."""
    try:
        for length, step_V in cached_steps(model, tokens_T):
            if differs(step_V, whole_TV[length - 1], scale):
                return (
                    "decoding with its key-value cache gives other logits than the whole text, so responses would "
                    "be sampled from another distribution than the trained one"
                )
    except torch.OutOfMemoryError:
        raise
    except FORWARD_ERRORS as error:
        return (
            f"it can't be sampled with a key-value cache ({in_short(error)}); models without one, or with layers "
            "other than attention, can't be trained here"
        )
    return None


def randomness(model: PreTrainedModel, tokens_T: Tensor, whole_TV: Tensor, scale: float) -> str | None:
    """Returns what is random in training mode after all dropout rates of the config are set to 0, too."""
    model.train()
    silenced = False
    while True:
        first_TV, second_TV = (logits(model, tokens_T[None])[0] for _ in range(2))
        if differs(second_TV, first_TV, scale / 20):  # not equality: a GPU may add in another order
            if silenced:
                return (
                    "two passes in training mode differ by a dropout or noise that no known rate switches off, so "
                    "log-probabilities would be random"
                )
            silenced = silence_config(model)
            if silenced:
                continue
            return "two passes in training mode differ, so log-probabilities would be random"
        if differs(first_TV, whole_TV, scale):
            return "it gives other logits in training mode than in sampling, and not by dropout alone"
        return None


def logits(model: PreTrainedModel, tokens_BT: Tensor) -> Tensor:
    """Returns the logits of texts without padding, as training computes them, (B, T, V)."""
    output = model(input_ids=tokens_BT, use_cache=False, logits_to_keep=tokens_BT.shape[1])
    return output.logits.to(torch.promote_types(torch.float32, output.logits.dtype))


def cached_steps(model: PreTrainedModel, tokens_T: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yields the logits behind the first tokens, by their number, as sampling computes them.

    Two prompts of different lengths are read at once, the shorter padded on the left; then the cache is repeated
    for two samples of each, a row leaves, and the others go on. Raises `LookupError` for a cache that stays empty.
    """
    longest = max(PROMPTS)
    input_BT = tokens_T.new_full((len(PROMPTS), longest), int(tokens_T[0]))
    mask_BT = torch.zeros_like(input_BT)
    for row, length in enumerate(PROMPTS):
        input_BT[row, longest - length :] = tokens_T[:length]
        mask_BT[row, longest - length :] = 1
    cache = DynamicCache()
    output = model(
        input_ids=input_BT,
        attention_mask=mask_BT,
        position_ids=(mask_BT.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    if cache.get_seq_length() == 0:
        raise LookupError("it fills none")
    yield from zip(PROMPTS, output.logits[:, -1], strict=True)
    cache.batch_repeat_interleave(2)
    lengths, mask_BT = [length for length in PROMPTS for _ in range(2)], mask_BT.repeat_interleave(2, dim=0)
    keep = torch.tensor([0, 2, 3], device=tokens_T.device)
    for step in range(2):
        if step == 1:
            cache.batch_select_indices(keep)
            lengths, mask_BT = [lengths[int(i)] for i in keep], mask_BT[keep]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(lengths), 1)], dim=1)
        position_B = torch.tensor(lengths, device=tokens_T.device)
        output = model(
            input_ids=tokens_T[position_B][:, None],
            attention_mask=mask_BT,
            position_ids=position_B[:, None],
            past_key_values=cache,
            use_cache=True,
        )
        lengths = [length + 1 for length in lengths]
        yield from zip(lengths, output.logits[:, -1], strict=True)


def differs(found: Tensor, expected: Tensor, scale: float) -> bool:
    """Tells whether logits differ by more than rounding does; `scale` is their spread."""
    return not bool(((found.to(expected.dtype) - expected).abs() <= TOLERANCE * scale).all())


def example_tokens(model: PreTrainedModel) -> Tensor:
    """Returns some tokens of the model's vocabulary, all different where it has as many; the same each time."""
    vocabulary = embedding_rows(model)
    order = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(0))
    return order.repeat(-(-TOKENS // vocabulary))[:TOKENS].to(model.device)


def embedding_rows(model: PreTrainedModel) -> int:
    """Returns how many tokens a model has embeddings for."""
    weight: Any = model.get_input_embeddings().weight
    return int(weight.shape[0])


@contextmanager
def own_random_numbers(device: torch.device) -> Iterator[None]:
    """Leaves PyTorch's generators as they were, whatever a model draws within."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        yield


def silence_dropout(model: PreTrainedModel) -> None:
    """Switches dropout and jitter off: log-probabilities depend on weights alone, and a first ratio is 1."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout | torch.nn.Dropout1d | torch.nn.Dropout2d | torch.nn.Dropout3d):
            module.p = 0.0
        silence_rates(module)


def silence_config(model: PreTrainedModel) -> bool:
    """Sets the dropout rates of a model's config to 0, which some models read anew; tells whether there were any.

    It is the last resort, since a saved folder keeps them.
    """
    found = [silence_rates(config) for config in {id(config): config for config in configs_of(model)}.values()]
    return any(found)


def configs_of(model: PreTrainedModel) -> Iterator[Any]:
    """Yields the configs of a model and its parts."""
    for module in model.modules():
        if (config := getattr(module, "config", None)) is not None:
            yield config


def silence_rates(owner: Any) -> bool:
    """Sets all rates of dropout and jitter among an object's attributes to 0; tells whether there were any."""
    rates = [
        name
        for name, value in vars(owner).items()
        if RATES.search(name) and isinstance(value, float | int) and not isinstance(value, bool) and value
    ]
    for name in rates:
        setattr(owner, name, 0.0)
    return bool(rates)
