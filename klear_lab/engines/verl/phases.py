"""The phases of a run, each of which is a training of verl's own, with a folder and a configuration of its own."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from klear_lab.config import Config
from klear_lab.rl.phases import Phase, phases_of


@dataclass(frozen=True)
class Training:
    """Describes a phase as verl trains it.

    `name` is its folder in the run's `verl/`, "" for a single phase, whose files lie there; `config` is that of a
    run with this phase alone.
    """

    name: str
    phase: Phase
    config: Config

    def weights(self, place: Path) -> Path:
        """Returns where verl leaves the weights of the last step; `place` is the run's `verl/`."""
        return place / self.name / "checkpoints" / f"global_step_{self.config.rl.steps}" / "actor" / "huggingface"


def trainings(config: Config) -> list[Training]:
    """Returns what verl trains, in order.

    A folder is called after the ability that its phase trains on, and where two would be called alike, with a
    number. Raises `ConfigError` for a phase that can't be read.
    """
    phases = phases_of(config.rl)
    if not config.rl.phases:
        return [Training("", phases[0], config)]
    names = [folder_name(phase) for phase in phases]
    if len({*names, "sft", "evaluate"}) < len(names) + 2:
        names = [f"{number}_{name}" for number, name in enumerate(names, 1)]
    return [
        Training(name, phase, dataclasses.replace(config, rl=phase.settings))
        for name, phase in zip(names, phases, strict=True)
    ]


def folder_name(phase: Phase) -> str:
    """Returns a folder's name for what a phase trains on."""
    return "".join(c if c.isalnum() else "_" for c in (phase.ability or "all").lower())
