"""What the stages of a run share, and none of them changes."""

from dataclasses import dataclass

import torch

from klear_lab.config import Config
from klear_lab.data.prepare import PreparedData
from klear_lab.storage.interruption import Stop
from klear_lab.storage.run_folder import RunFolder
from klear_lab.tracking import Tracker
from klear_lab.verify.verifiers import Verifiers


@dataclass(frozen=True)
class RunContext:
    """A run's config, device, data, verifiers and outlets.

    `data_key` names the prepared data in the stage cache; `stop` knows whether the run was asked to stop.
    """

    config: Config
    device: torch.device
    data: PreparedData
    data_key: str
    verifiers: Verifiers
    folder: RunFolder
    tracker: Tracker
    stop: Stop
