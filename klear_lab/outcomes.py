"""How the arms of a sweep ended: a file for each, and the table of them."""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Outcome:
    """How an arm ended; `scores` are those of its last evaluation."""

    job: int
    name: str
    seed: int
    status: str
    scores: dict[str, float]
    seconds: float
    folder: str


def outcome_file(folder: Path, number: int) -> Path:
    """Returns where a start of a sweep keeps how an arm ended."""
    return folder / f"arm-{number:04d}.json"


def shortest(folder: str) -> str:
    """Shortens a path below the working directory to a relative one."""
    return str(Path(folder).relative_to(Path.cwd())) if Path(folder).is_relative_to(Path.cwd()) else folder


def print_outcomes(outcomes: list[Outcome]) -> None:
    """Prints one line an arm: status, final scores, time, folder."""
    metrics = sorted({key for o in outcomes for key in o.scores})
    table = Table(title="Arms of the sweep", title_justify="left")
    for heading in ("arm", "seed", "status", *(m.removeprefix("eval/") for m in metrics), "seconds"):
        table.add_column(heading)
    table.add_column("folder", overflow="fold")
    for o in outcomes:
        scores = [f"{o.scores[m]:.3f}" if m in o.scores else "-" for m in metrics]
        table.add_row(o.name, str(o.seed), o.status, *scores, f"{o.seconds:.0f}", shortest(o.folder))
    # Files and pipes have no width of their own; 80 columns would fold every heading.
    Console(stderr=True, width=None if sys.stderr.isatty() else 140).print(table)
