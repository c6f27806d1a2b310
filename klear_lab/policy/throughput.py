"""Measures how well a step uses its device: model FLOPs utilisation and memory.

    MFU = FLOPs of the model in its forward and backward passes / seconds / peak FLOPs a second of the card

The FLOPs are those that the update needs, whatever a program spends: 6 for each parameter and token, 4 where the
parameter isn't trained, and 6 x layers x heads x head size x length^2 for the causal attention of a sequence.
Passes for old log-probabilities, padding and recomputed activations (gradient checkpointing) take time but add no
FLOPs, so they lower the MFU. Of experts only those count that a token goes through.
"""

import re
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from klear_lab.policy.memory import GIB

# Makers' peaks in dense bfloat16 (float16 where a card has no bfloat16), by words of the device's name; the first
# that fits counts, so that a variant stands before its card.
PEAK_FLOPS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,
    "T4": 65e12,
    "A6000": 155e12,
    "5090": 209e12,
    "4090": 165e12,
    "3090": 71e12,
}
SLOWER = {"mig", "laptop"}  # words of a part of a card, or of a smaller one under the same name
STATM = Path("/proc/self/statm")  # Linux's count of this process's pages


def peak_flops(device_name: str) -> float | None:
    """Returns a card's peak in dense bfloat16 FLOPs a second, None for one that the table doesn't have.

    device_name: as `torch.cuda.get_device_name` writes it, e.g. "NVIDIA H100 80GB HBM3".
    """
    words = {*re.split(r"[\s-]+", device_name.lower())}
    if words & SLOWER:
        return None
    fitting = (peak for card, peak in PEAK_FLOPS.items() if {*card.lower().split()} <= words)
    return next(fitting, None)


def training_flops(model: PreTrainedModel, lengths: Sequence[int]) -> float:
    """Returns the FLOPs of one forward and backward pass over sequences of these lengths, prompts included."""
    config: Any = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 0
    head_size = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    attention = 6 * getattr(config, "num_hidden_layers", 0) * heads * head_size
    return flops_per_token(model) * sum(lengths) + attention * sum(length**2 for length in lengths)


def flops_per_token(model: PreTrainedModel) -> float:
    """Returns the FLOPs of all products with parameters, forward and backward, for one token.

    An input embedding is looked up, not multiplied with, unless the output head is the same tensor.
    """
    config: Any = model.config.get_text_config()
    experts = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    used = (getattr(config, "num_experts_per_tok", None) or experts) / experts if experts else 1.0
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    looked_up = None if head is None or head.weight is embedding.weight else embedding.weight
    return sum(
        (6 if parameter.requires_grad else 4) * parameter.numel() * (used if ".experts." in name else 1.0)
        for name, parameter in model.named_parameters()
        if parameter is not looked_up
    )


def utilisation(model: PreTrainedModel, lengths: Sequence[int], seconds: float) -> float | None:
    """Returns the MFU of training on sequences of these lengths; None without any, or on an unknown device."""
    device = model.device
    peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return training_flops(model, lengths) / seconds / peak if peak and lengths else None


def forget_peak_memory(device: torch.device) -> None:
    """Starts the measurement of a step's peak memory, where the device has one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_metrics(device: torch.device) -> dict[str, float | None]:
    """Returns the GPU's peak since `forget_peak_memory`, None on other devices, and this process's main memory."""
    peak = torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None
    return {"perf/device_memory_gib": peak, "perf/main_memory_gib": main_memory()}


def main_memory() -> float | None:
    """Returns the GiB of main memory that this process holds now; None where the system isn't Linux."""
    if not STATM.exists():
        return None
    return int(STATM.read_text().split()[1]) * resource.getpagesize() / GIB
