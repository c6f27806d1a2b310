"""Keeps which two arms of a user's own are settled in batches, and says in a table where each pair stands.

settled_arms.json in the folder of the runs names each pair, so that the report gives the verdict with which the
command ended. Everything else that a verdict needs is in the runs.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from analysis.claims.second import estimate_cell
from analysis.draw.output import make_folder, replace_file
from analysis.draw.table import DASH, Table
from analysis.errors import RunFolderError
from analysis.runs.frames import RunFrames
from analysis.settle.outlook import Outlook, outlook
from analysis.settle.targets import runs_of_two_arms, two_arms

NAME = "settled_arms.json"


@dataclass(frozen=True)
class Pair:
    """Holds two arms, the one that should end higher first, the settings of all their runs, and the margin."""

    arms: tuple[str, ...]
    settings: tuple[str, ...] = ()
    margin: float | None = None


def read_pairs(folder: Path) -> list[Pair]:
    """Reads which pairs are settled in batches; none without the file. Raises RunFolderError if damaged."""
    path = folder / NAME
    if not path.exists():
        return []
    try:
        return [read_pair(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path}: doesn't say which arms are settled in batches ({error})") from error


def read_pair(arms: Sequence[str], settings: Sequence[str], margin: float | None) -> Pair:
    """Returns a pair as the file has it. Raises ValueError or TypeError for anything else."""
    first, second = arms
    return Pair((str(first), str(second)), tuple(map(str, settings)), None if margin is None else float(margin))


def check_margin(folder: Path, pair: Pair) -> None:
    """Raises RunFolderError where a pair was settled with another margin: that is chosen before one looks."""
    for known in read_pairs(folder):
        if (known.arms, known.settings) == (pair.arms, pair.settings) and known.margin != pair.margin:
            before = "no margin" if known.margin is None else f"--margin {known.margin:g}"
            raise RunFolderError(
                f"{folder / NAME}: {' and '.join(pair.arms)} were settled with {before}; go on with it, or settle "
                "them in another folder: --runs DIR"
            )


def note_pair(folder: Path, pair: Pair) -> None:
    """Notes that a pair is settled in batches, before the first of them."""
    known = read_pairs(folder)
    if pair not in known:
        make_folder(folder)
        text = json.dumps([asdict(one) for one in (*known, pair)], indent=1) + "\n"
        replace_file(folder / NAME, text.encode())


def pairs_at_hand(frames: RunFrames) -> list[tuple[Pair, Outlook]]:
    """Returns where each pair stands that was settled among these runs, each as one claim by itself."""
    found = []
    for pair in read_pairs(Path(frames.source)):
        target = two_arms(pair.arms, pair.settings)
        found.append((pair, outlook(target, {}, runs_of_two_arms(frames, target), pair.margin)))
    return found


def pairs_table(found: Sequence[tuple[Pair, Outlook]]) -> Table:
    """Prints the pairs with their verdicts."""
    rows = [
        [
            f"{pair.arms[0]} ends above {pair.arms[1]}",
            one.verdict,
            effect_words(one),
            str(len(one.effects)),
            DASH if pair.margin is None else f"{pair.margin:g}",
            shlex.join(pair.settings) or DASH,
        ]
        for pair, one in found
    ]
    caption = (
        "Arms of your own that were settled in batches of seeds, each pair as one claim by itself at an error of "
        "5 %. Effect: final avg@n of the first arm less that of the second, mean over seeds, with the 95 % "
        "interval that holds whenever one looks and stops. Equal: surely within the margin."
    )
    names = ("Arms", "Here", "Effect", "Seeds", "Margin", "Settings")
    return Table("settled_arms", caption, [("", name) for name in names], rows)


def effect_words(one: Outlook) -> str:
    """Prints an effect with its interval; a dash before the first pair of runs."""
    estimate = float(one.effects.mean()) if len(one.effects) else None
    return estimate_cell(
        {"estimate": estimate, "interval": one.interval if np.isfinite(one.interval).all() else None}
    )
