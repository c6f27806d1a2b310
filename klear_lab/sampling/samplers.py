"""Which samplers there are, by the name in the config. Their modules are imported where they are chosen."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from klear_lab.config import Config, ConfigError, SamplerConfig
from klear_lab.policy.model import Policy
from klear_lab.sampling.types import Sampler


def open_sampler(config: Config, policy: Policy) -> Sampler:
    """Opens the sampler that the config names, with the policy's weights.

    Raises `ConfigError` where it isn't installed or can't run the policy's model.
    """
    if lines := [*missing_sampler(config.sampler)]:
        raise ConfigError("\n".join(lines))
    return SAMPLERS[config.sampler.name](policy, config.sampler)


def missing_sampler(settings: SamplerConfig) -> Iterator[str]:
    """Yields a line where the sampler isn't installed."""
    if settings.name == "vllm" and find_spec("vllm") is None:
        yield (
            "sampler=vllm: vLLM isn't installed here; in the checkout, pip install -e '.[vllm]' on a GPU machine, "
            "make install-vllm on a CPU, or set sampler=transformers"
        )


def open_transformers(policy: Policy, settings: SamplerConfig) -> Sampler:
    """Opens klear_lab's own sampler, which has no settings."""
    from klear_lab.sampling.transformers import TransformersSampler

    return TransformersSampler(policy)


def open_vllm(policy: Policy, settings: SamplerConfig) -> Sampler:
    """Starts a vLLM engine."""
    from klear_lab.sampling.vllm import VllmSampler

    return VllmSampler(policy, settings)


SAMPLERS: dict[str, Callable[[Policy, SamplerConfig], Sampler]] = {
    "transformers": open_transformers,
    "vllm": open_vllm,
}
