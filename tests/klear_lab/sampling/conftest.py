"""The policy that tests of sampling share."""

import pytest
import torch

from klear_lab.config import ModelConfig
from klear_lab.policy.model import load_policy


@pytest.fixture
def policy_32():
    """The tiny policy in float32, as it trains."""
    return load_policy(ModelConfig(name="tiny", hidden_size=16, layers=2), torch.device("cpu"), seed=0)
