"""The output head of any causal language model, and the hidden states that the model gives to it.

What a model does before its head (norms, projections, scales) stays in the model's own forward pass, in which only
the head is replaced. What it does after the head is found once for each model, by a trial: the head returns chosen
values, and what the model makes of them must be one of the known transforms, with constants from its config.

Shapes: B sequences, T positions, H hidden size, V vocabulary.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Linear
from transformers import PreTrainedModel

log = logging.getLogger(__name__)

SCALES = ("logit_scale", "lm_head_multiplier", "output_multiplier", "logits_scaling")  # Cohere, Falcon-H1, Granite
CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma, RecurrentGemma, xLSTM


@dataclass(frozen=True)
class OutputHead:
    """Holds a linear head, and the transform after it: cap * tanh(scale * x / cap), or scale * x without a cap."""

    linear: Linear
    scale: float
    cap: float | None


def output_head(model: PreTrainedModel) -> OutputHead | None:
    """Returns the model's head, or None where it isn't a linear one, or what follows it is unknown."""
    if model not in known_heads:
        known_heads[model] = find_head(model)
        if known_heads[model] is None:
            log.warning(
                "%s: its output head is none that can be computed in chunks of float32; log-probabilities come "
                "from its own logits, which takes more memory",
                type(model).__name__,
            )
    return known_heads[model]


known_heads: WeakKeyDictionary[PreTrainedModel, OutputHead | None] = WeakKeyDictionary()


def find_head(model: PreTrainedModel) -> OutputHead | None:
    """Tries the known transforms on the model; see `output_head`."""
    linear = model.get_output_embeddings()
    if type(linear) is not Linear or "forward" in vars(linear):  # a subclass or a wrapper may compute anything
        return None
    given_BTV, made_BTV = try_out(model, linear)
    if made_BTV is None or made_BTV.shape != given_BTV.shape:
        return None
    for scale, cap in known_transforms(model.config.get_text_config()):
        expected_BTV = given_BTV * scale
        if cap is not None:
            expected_BTV = cap * torch.tanh(expected_BTV / cap)
        if torch.allclose(made_BTV.to(expected_BTV), expected_BTV, rtol=1e-5, atol=1e-6):
            return OutputHead(linear, scale, cap)
    return None


def try_out(model: PreTrainedModel, linear: Linear) -> tuple[Tensor, Tensor | None]:
    """Returns logits from -100 to 100, and what the model makes of them; None unless it calls the head once."""
    weight = linear.weight
    ramp = torch.linspace(-1, 1, 2 * len(weight), dtype=weight.dtype, device=weight.device)
    given_BTV = 100 * ramp.pow(3).view(1, 2, -1)  # the cube has small values too
    calls = []

    def give(hidden_BTH: Tensor) -> Tensor:
        calls.append(hidden_BTH.shape)
        return given_BTV.clone()

    with torch.no_grad(), torch.autocast(weight.device.type, enabled=False), replaced(linear, give):
        made_BTV = model(
            input_ids=torch.zeros(1, 2, dtype=torch.long, device=weight.device), use_cache=False
        ).logits
    return given_BTV, made_BTV if calls == [(1, 2, weight.shape[1])] else None


def known_transforms(config: Any) -> Iterator[tuple[float, float | None]]:
    """Yields the scales and caps that the config may mean, the simplest first."""
    named = [value for name in SCALES if (value := getattr(config, name, None))]
    scales = [
        1.0,
        *named,
        *(1 / value for value in named),
    ]  # logits_scaling divides in one model, multiplies in another
    caps = [None, *(value for name in CAPS if (value := getattr(config, name, None)))]
    return product(scales, caps)


def hidden_states(model: PreTrainedModel, head: OutputHead, input_ids_BT: Tensor) -> Tensor:
    """Returns what the model gives to its head, hidden_BTH, with gradient; the head itself isn't computed."""
    caught = []

    def catch(hidden_BTH: Tensor) -> Tensor:
        caught.append(hidden_BTH)
        return hidden_BTH.new_empty(len(hidden_BTH), 0, head.linear.out_features)

    with replaced(head.linear, catch):
        model(input_ids=input_ids_BT, use_cache=False)
    (hidden_BTH,) = caught
    return hidden_BTH


@contextmanager
def replaced(linear: Linear, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Lets the module compute `forward` meanwhile."""
    linear.forward = forward  # type: ignore[assignment]
    try:
        yield
    finally:
        del linear.forward
