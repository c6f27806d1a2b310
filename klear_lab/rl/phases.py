"""Phases of RL: math first and code after it, as in the paper, or what `rl.phases` lists, each with its settings.

Without `rl.phases` there is one phase of all rows and all steps.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from klear_lab.config import ConfigError, RLConfig
from klear_lab.rows import Row

# A phase can't set these: they concern evaluation and memory, which are the same in every phase.
OF_THE_RUN = ("phases", "max_response_tokens", "rollout_batch_sequences")


@dataclass(frozen=True)
class Phase:
    """A phase trains on rows of one `ability`, or on all where it is None; `start` RL steps come before it.

    Its `settings` are those of `rl` with its own changes.
    """

    start: int
    ability: str | None
    settings: RLConfig

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows that the phase trains on; released files write their ability in either case."""
        if self.ability is None:
            return list(rows)
        return [row for row in rows if str(row.get("ability", "")).lower() == self.ability.lower()]


def phases_of(rl: RLConfig) -> list[Phase]:
    """Returns all phases in order. Raises `ConfigError` for one that can't be read, naming its key."""
    if not rl.phases:
        return [Phase(0, None, rl)]
    phases: list[Phase] = []
    start = 0
    for number, given in enumerate(rl.phases):
        phase = read_phase(f"rl.phases[{number}]", given, rl, start)
        phases.append(phase)
        start += phase.settings.steps
    return phases


def read_phase(key: str, given: Any, rl: RLConfig, start: int) -> Phase:
    """Reads a phase; what it doesn't set is as in `rl`. Raises `ConfigError` that begins with `key`."""
    names = [f.name for f in dataclasses.fields(RLConfig) if f.name not in OF_THE_RUN]
    if not isinstance(given, dict):
        raise ConfigError(f"{key}={given}: must be a mapping, e.g. {{ability: math, steps: 24}}")
    for name in given:
        if name not in (*names, "ability"):
            raise ConfigError(f"{key}.{name}: unknown; one of ability, {', '.join(names)}")
    settings = {name: value for name, value in given.items() if name != "ability"}
    try:
        typed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(rl), settings))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}.{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(typed, RLConfig)
    typed.phases = []
    ability = given.get("ability")
    if not (ability is None or isinstance(ability, str)):
        raise ConfigError(f"{key}.ability={ability}: must be one word, e.g. math, or null for all rows")
    return Phase(start, ability, typed)


def phase_of(rl: RLConfig, step: int) -> Phase:
    """Returns the phase that a step belongs to; steps count from 1."""
    return next(phase for phase in reversed(phases_of(rl)) if phase.start < step)


def total_steps(rl: RLConfig) -> int:
    """Returns the number of RL steps of all phases together."""
    return sum(phase.settings.steps for phase in phases_of(rl))


def check_rows(rl: RLConfig, rows: Sequence[Row]) -> None:
    """Raises `ConfigError` for a phase without rows."""
    for number, phase in enumerate(phases_of(rl)):
        if phase.settings.steps and not phase.rows(rows):
            there = sorted({str(row.get("ability")) for row in rows})
            raise ConfigError(
                f"rl.phases[{number}].ability={phase.ability}: none of {len(rows)} RL rows has it; "
                f"there are {', '.join(there)}"
            )
