"""The entry point: one config in, one finished run folder out.

python -m klear_lab.run clip_method=gppo,cispo -m
"""

import os
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from klear_lab.config import ConfigError, VerifierUnavailable, register
from klear_lab.sandbox.isolation import SandboxUnavailable
from klear_lab.storage.files import StorageError
from klear_lab.validation import explain

# What a person can put right; the message says how, so no traceback is shown.
USERS_ERRORS = (
    *(ConfigError, SandboxUnavailable, VerifierUnavailable, StorageError, FloatingPointError),
    *(HydraException, OmegaConfBaseException),
)

register()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parents[1] / "conf"), config_name="config")
def run_job(composed: DictConfig) -> None:
    """Runs one config, alone or as an arm of a sweep."""
    from klear_lab.sweep import run_arm  # not above: --help and completion needn't wait for torch

    run_arm(composed)


def main() -> None:
    """Runs the command line; prints what is wrong with a config in one message, without a traceback."""
    traceback_wanted = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of being printed by Hydra
    try:
        run_job()
    except USERS_ERRORS as error:
        if traceback_wanted:
            raise
        sys.exit(explain(error))
    except KeyboardInterrupt as interruption:
        print(
            str(interruption) or "interrupted; the same command goes on from the last checkpoints", file=sys.stderr
        )
        sys.exit(130)


if __name__ == "__main__":
    main()
