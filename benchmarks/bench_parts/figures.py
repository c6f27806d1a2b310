"""A figure: the same quantity of several sides, measured in turn, and how it is shown and compared."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

OURS = "klear_lab"
WORSE = 1.10  # of the kept ratio: more is a regression


@dataclass
class Figure:
    """Holds what the sides took, by side; less is better.

    `goal` is the ratio to `peer` that we want at most; `at_most` is a limit of our own value, in `unit`.
    """

    what: str
    unit: str
    values: dict[str, list[float]]
    peer: str | None = None
    goal: float | None = None
    at_most: float | None = None

    @property
    def key(self) -> tuple[str, str | None]:
        """Returns what a figure is known by: a part may set the same quantity beside several peers."""
        return self.what, self.peer

    @property
    def ratio(self) -> float | None:
        """Returns our median over the peer's; None without a peer."""
        if self.peer is None or self.peer not in self.values:
            return None
        return statistics.median(self.values[OURS]) / statistics.median(self.values[self.peer])

    @property
    def met(self) -> bool | None:
        """Tells whether the goal is met; None where there is none."""
        if self.at_most is not None:
            return statistics.median(self.values[OURS]) <= self.at_most
        return None if self.goal is None or self.ratio is None else self.ratio <= self.goal


@dataclass
class Part:
    """Holds what one part has found: its figures, and lines of text for what isn't a figure."""

    title: str
    command: str
    date: str
    machine: str
    repeats: int
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, saved: dict[str, Any]) -> "Part":
        """Reads a part of results.json."""
        figures = [Figure(**{k: v for k, v in f.items() if k not in ("ratio", "met")}) for f in saved["figures"]]
        return cls(**{**saved, "figures": figures})

    def saved(self) -> dict[str, Any]:
        """Returns what results.json keeps."""
        figures = [{**asdict(f), "ratio": f.ratio, "met": f.met} for f in self.figures]
        return {**asdict(self), "figures": figures}


def regressions(kept: Part, now: Part) -> dict[tuple[str, str | None], str]:
    """Returns a line for each figure whose ratio to its peer grew by more than 10 %, by the figure's key."""
    before = {f.key: f.ratio for f in kept.figures}
    return {
        f.key: f"{f.what}: {f.ratio:.3g} of {f.peer}'s, was {was:.3g} ({100 * (f.ratio / was - 1):+.0f} %)"
        for f in now.figures
        if f.ratio is not None and (was := before.get(f.key)) is not None and f.ratio > WORSE * was
    }


def not_measured(kept: Part, now: Part) -> list[str]:
    """Returns a line for each figure that is kept with a ratio, and has none now."""
    measured = {f.key for f in now.figures if f.ratio is not None}
    return [
        f"not measured now: {f.what}, beside {f.peer}"
        for f in kept.figures
        if f.ratio is not None and f.key not in measured
    ]


def spread(values: list[float], unit: str) -> str:
    """Returns the median with the range: "0.61 s (0.60 to 0.65)"."""
    middle, low, high = map(number, (statistics.median(values), min(values), max(values)))
    return f"{middle} {unit}" if len(values) == 1 else f"{middle} {unit} ({low} to {high})"


def number(value: float) -> str:
    """Returns three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
