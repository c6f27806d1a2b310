"""The registry of verifiers: what one is, and which one a row asks for.

A verifier is a class in a file of its own in this folder, with the decorator `@verifier`:

    @verifier
    class ExactVerifier(Verifier):
        part = "chain"                                      # rows whose `data_source` contains it
        def verify(self, answers, rows, draw): ...          # one verdict an answer, in order

Nothing else has to name it: every file of the folder is imported before a row is looked up.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Self, TypeVar

import klear_lab.verify
from klear_lab.config import ConfigError, RewardConfig
from klear_lab.rows import Row


@dataclass(frozen=True)
class Verdict:
    """What an answer is worth before any shaping: `raw` from 0 to 1 (the share of tests passed), and why."""

    raw: float
    reason: str


@dataclass(frozen=True)
class VerifierSettings:
    """What verifiers are opened with: `workers` is processes for each verifier, `sandbox` auto or required."""

    reward: RewardConfig
    workers: int
    sandbox: str


class Verifier(ABC):
    """Judges the answers to rows of one kind."""

    part: ClassVar[str]  # rows whose `data_source` contains this text are judged here
    reasons: ClassVar[tuple[str, ...]] = ("correct", "wrong")  # that its verdicts give

    @classmethod  # noqa: B027 - most ground truths are text that any verifier can use
    def check(cls, row: Row) -> None:
        """Raises `ConfigError` for a row whose ground truth can't be used."""

    @classmethod
    def count_test_cases(cls, row: Row) -> int | None:
        """Returns the number of test cases of a row; None for verifiers that run none."""
        return None

    @classmethod
    @contextmanager
    def open(cls, settings: VerifierSettings) -> Iterator[Self]:
        """Holds what the verifier needs (processes, a sandbox) for the length of a run.

        Raises `VerifierUnavailable` or `SandboxUnavailable` where it doesn't work on this machine.
        """
        yield cls()

    @abstractmethod
    def verify(self, answers: Sequence[str], rows: Sequence[Row], draw: str | None) -> list[Verdict]:
        """Returns the verdict on each answer (the text after the thought); `draw`: see `Verifiers.verify`."""


REGISTERED: dict[str, type[Verifier]] = {}  # by the part of a `data_source` that asks for it
V = TypeVar("V", bound=type[Verifier])


def verifier(cls: V) -> V:
    """Makes a verifier known (class decorator). Raises `ValueError` where two ask for the same rows."""
    if cls.part in REGISTERED:
        raise ValueError(f"{cls.__name__}: {REGISTERED[cls.part].__name__} judges rows with {cls.part!r} already")
    REGISTERED[cls.part] = cls
    return cls


@cache
def import_verifiers() -> None:
    """Imports every file of the folder, so that its verifiers register themselves."""
    for module in pkgutil.iter_modules(klear_lab.verify.__path__):
        importlib.import_module(f"klear_lab.verify.{module.name}")


def verifiers_by_part() -> dict[str, type[Verifier]]:
    """Returns all verifiers by the part of a row's `data_source` that asks for them, in alphabetical order."""
    import_verifiers()
    return dict(sorted(REGISTERED.items()))  # imports come in any order


def verifier_of(row: Row) -> type[Verifier]:
    """Returns the verifier that a row asks for. Raises `ConfigError` for a row that no verifier knows.

    Released files add suffixes to the names of data sources, so a part of the name decides: the first in the name,
    since reasoning-gym has tasks like `reasoning_gym_chain_sum`.
    """
    import_verifiers()
    name = row["data_source"]
    places = {part: name.find(part) for part in REGISTERED if part in name}
    if not places:
        known = ", ".join(verifiers_by_part())
        raise ConfigError(
            f"row {row.get('id')}: data_source={name} has no verifier; it must contain one of {known}"
        )
    return REGISTERED[min(places, key=lambda part: (places[part], -len(part)))]
