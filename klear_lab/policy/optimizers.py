"""AdamW in three sizes: what its states cost decides which model fits on one card.

| optimizer   | bytes a parameter with float32 weights and gradients | states |
|-------------|------------------------------------------------------|--------|
| adamw       | 16 | float32 |
| adamw_8bit  | 10 | 8 bits, quantised in blocks (arXiv 2110.02861) |
| adamw_paged | 10, of which 2 leave the GPU when it is full | the same, in memory that CUDA moves |
"""

from collections.abc import Sequence
from typing import Any

import torch

from klear_lab.config import ConfigError


def make_optimizer(name: str, parameters: Sequence[torch.nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """Returns an optimizer for the parameters; `settings` are AdamW's own: lr, betas, weight_decay.

    Raises `ConfigError` where its library isn't installed, or can't work on this machine.
    """
    if name == "adamw":
        return torch.optim.AdamW(parameters, fused=True, **settings)
    try:
        import bitsandbytes
    except ImportError as error:
        raise ConfigError(
            f"optimizer={name}: needs bitsandbytes; in the checkout, pip install -e '.[gpu]'"
        ) from error
    if name == "adamw_paged" and parameters[0].device.type != "cuda":
        raise ConfigError(f"optimizer={name}: only CUDA moves its memory; must be adamw or adamw_8bit here")
    kind = bitsandbytes.optim.AdamW8bit if name == "adamw_8bit" else bitsandbytes.optim.PagedAdamW8bit
    optimizer = kind(parameters, **settings)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer
