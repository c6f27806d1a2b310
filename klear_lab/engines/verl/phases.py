"""The phases of a run, each of which is a training of verl's own, with a folder and a configuration of its own."""

import dataclasses

from klear_lab.config import Config
from klear_lab.rl.phases import Phase, phases_of


def phase_configs(config: Config) -> dict[str, Config]:
    """Returns the config of each phase, by the folder that it has in the run's `verl/`; of a single one, by "".

    The folder is called after the ability that the phase trains on, and where two would be called alike, with a
    number. Raises `ConfigError` for a phase that can't be read.
    """
    phases = phases_of(config.rl)
    if not config.rl.phases:
        return {"": config}
    names = [folder_name(phase) for phase in phases]
    if len({*names, "sft", "evaluate"}) < len(names) + 2:
        names = [f"{number}_{name}" for number, name in enumerate(names, 1)]
    return {
        name: dataclasses.replace(config, rl=phase.settings) for name, phase in zip(names, phases, strict=True)
    }


def folder_name(phase: Phase) -> str:
    """Returns a folder's name for what a phase trains on."""
    return "".join(c if c.isalnum() else "_" for c in (phase.ability or "all").lower())
