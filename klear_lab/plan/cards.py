"""The cards that a plan can be made for: memory, speed, and how much of either a run gets.

Memory is what CUDA reports as total, in GiB. Peaks are dense ones, from NVIDIA's data sheets of the H100 SXM5 and
H200 SXM (2024), A100 SXM4 (2021) and L40S (2023), and the whitepaper of the Ada architecture for the RTX 4090.
"""

import os
from dataclasses import dataclass

import torch

from klear_lab.config import Config, ConfigError
from klear_lab.policy.memory import GIB
from klear_lab.policy.throughput import PEAK_FLOPS

GB = 1e9
# CUDA's own context takes about half a GB, and the allocator's holes a few percent.
USABLE = 0.9
# What a card gets of its peak, taken from what others have published, and not measured here: docs/models.md has
# the figures. prime-rl's full updates and SFT have 20 to 48 % of an H100's FLOP/s, and 33 % in the mean.
UTILISATION = 0.3
ADAPTER_UTILISATION = 0.2  # prime-rl's adapters have two thirds of that: 12 to 35 %
# Passes without gradient, of either: verl's take 0.31 to 0.53 of an update's time, where FLOPs alone say 0.25.
PASS_SHARE = 0.6
# Of the peak, in decoding, what else a step takes included: verl's rollouts have 0.24 to 0.68.
BANDWIDTH_SHARE = 0.4
# Seconds a layer and decoding step at least, for a model that runs layer by layer from Python without CUDA graphs.
LAUNCH_SECONDS = 8e-4


@dataclass(frozen=True)
class Card:
    """Says what a device has: memory in bytes, peak FLOP/s in bfloat16 and float32, bandwidth in bytes/s."""

    name: str
    memory: float
    bfloat16: float
    float32: float
    bandwidth: float

    @property
    def usable(self) -> float:
        """Returns the bytes that a run should take at most."""
        return self.memory * USABLE

    @property
    def is_cpu(self) -> bool:
        """Tells whether it is no card at all."""
        return self.name == "cpu"


CARDS = {
    card.name: card
    for card in (
        Card("h100-80gb", 79.1 * GIB, PEAK_FLOPS["H100"], 67e12, 3.35e12),
        Card("h200", 139.8 * GIB, PEAK_FLOPS["H200"], 67e12, 4.8e12),
        Card("a100-80gb", 79.1 * GIB, PEAK_FLOPS["A100"], 19.5e12, 2.04e12),
        Card("a100-40gb", 39.4 * GIB, PEAK_FLOPS["A100"], 19.5e12, 1.555e12),
        Card("rtx4090", 23.5 * GIB, PEAK_FLOPS["4090"], 82.6e12, 1.008e12),
        Card("l40s", 44.4 * GIB, PEAK_FLOPS["L40S"], 91.6e12, 0.864e12),
    )
}
NAMES = (*CARDS, "cpu")


def gpus_of(config: Config) -> int:
    """Returns how many cards share a run: those of engine=verl, else one."""
    return config.engine.nodes * config.engine.gpus_per_node if config.engine.name == "verl" else 1


def card_of(name: str) -> Card:
    """Returns a card by its name; `cpu` is this machine. Raises `ConfigError` for an unknown one."""
    if name == "cpu":
        return this_cpu()
    if name not in CARDS:
        raise ConfigError(f"--card {name}: must be one of {', '.join(NAMES)}")
    return CARDS[name]


def this_cpu() -> Card:
    """Describes this machine's processor: its memory, and 50 GFLOP/s a core, as AVX2 has in float32 products."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    speed = 50e9 * (os.cpu_count() or 1)
    return Card("cpu", memory, speed, speed, 20e9)


def this_gpu(device: torch.device) -> Card:
    """Describes a CUDA device by the memory that it really has; its speed is no matter where this is used."""
    found = torch.cuda.get_device_properties(device)
    return Card(found.name, found.total_memory, 1.0, 1.0, 1.0)
