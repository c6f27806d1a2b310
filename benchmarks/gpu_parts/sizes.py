"""How large each part's work is: for one GPU, and small enough for a test on a CPU."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sizes:
    """Holds the numbers of one size; tokens are counted with neither prompt nor padding unless named so."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    sample_prompts: int  # the samplers' requests, each with `samples` seeds
    samples: int
    sample_tokens: int
    head_tokens: int  # of the output head alone
    head_hidden: tuple[int, ...]
    long_tokens: int  # of the one long sequence, its prompt included
    update_sequences: int  # of the RL update, with response lengths that are log-uniform between the next two
    shortest: int
    longest: int
    micro_batch_tokens: int
    loop_prompts: int  # of the loop that TRL runs too, each with `samples` responses
    loop_tokens: int


# Qwen3-0.6B's own shape.
FULL = Sizes(
    layers=28,
    hidden=1024,
    intermediate=3072,
    heads=16,
    kv_heads=8,
    head_dim=128,
    vocabulary=151_936,
    positions=40_960,
    sample_prompts=128,
    samples=8,
    sample_tokens=1024,
    head_tokens=8192,
    head_hidden=(1024, 4096),
    long_tokens=32_768,
    update_sequences=128,
    shortest=64,
    longest=4096,
    micro_batch_tokens=32_768,
    loop_prompts=16,
    loop_tokens=256,
)
SMALL = Sizes(
    layers=2,
    hidden=64,
    intermediate=128,
    heads=2,
    kv_heads=1,
    head_dim=32,
    vocabulary=1000,
    positions=256,
    sample_prompts=4,
    samples=2,
    sample_tokens=8,
    head_tokens=64,
    head_hidden=(16, 32),
    long_tokens=128,
    update_sequences=16,
    shortest=4,
    longest=64,
    micro_batch_tokens=256,
    loop_prompts=4,
    loop_tokens=8,
)


@dataclass(frozen=True)
class Job:
    """Says what a part needs to know: the device, the sizes, the model's folder, and one for its own files."""

    device: str
    sizes: Sizes
    model: Path
    work: Path
    small: bool
    batch_sequences: int | None
