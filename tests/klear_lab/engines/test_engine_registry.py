"""The choice of an engine: every name that the config takes is one, and has a config file."""

import dataclasses
from pathlib import Path

from klear_lab.config import EngineConfig
from klear_lab.engines.registry import ENGINES, OWN_CHECKPOINTS

ROOT = Path(__file__).parents[3]


def test_every_name_that_the_config_takes_is_an_engine():
    (name,) = (f for f in dataclasses.fields(EngineConfig) if f.name == "name")
    assert name.metadata["must be"] == f"one of {', '.join(ENGINES)}"
    assert {path.stem for path in (ROOT / "conf" / "engine").glob("*.yaml")} == {*ENGINES}
    assert {*OWN_CHECKPOINTS} <= {*ENGINES}
