"""The choice of a sampler: every name opens one, and a sampler that isn't installed is refused in one line."""

import dataclasses

import pytest

from klear_lab.config import ConfigError, SamplerConfig
from klear_lab.sampling import samplers
from klear_lab.sampling.samplers import SAMPLERS, missing_sampler, open_sampler


def test_every_name_that_the_config_takes_opens_a_sampler():
    (name,) = (f for f in dataclasses.fields(SamplerConfig) if f.name == "name")
    assert all(name.metadata["test"](known) for known in SAMPLERS)
    assert name.metadata["must be"] == f"one of {', '.join(SAMPLERS)}"


def test_the_default_samples_with_the_policys_weights(config, policy):
    from klear_lab.sampling.transformers import TransformersSampler

    assert isinstance(open_sampler(config(), policy), TransformersSampler)


def test_a_sampler_that_is_not_installed_is_refused_with_the_command_that_installs_it(config, policy, monkeypatch):
    monkeypatch.setattr(samplers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[vllm\]'") as error:
        open_sampler(config("sampler=vllm"), policy)
    assert "\n" not in str(error.value)
    assert [*missing_sampler(SamplerConfig())] == []
