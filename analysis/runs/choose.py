"""Finds the runs that a name on the command line means: a sweep, a run id, or the beginning of one run id."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from analysis.errors import RunFolderError
from analysis.runs.frames import RunFrames, sweeps_of

SHOWN = 8  # names in a message


def choose_runs(frames: RunFrames, names: Sequence[str]) -> list[str]:
    """Returns the ids of the runs named by id, its beginning, or a sweep.

    Raises RunFolderError for a name that is empty, unknown, ambiguous, or that of a damaged run.
    """
    chosen: dict[str, None] = {}
    for name in names:
        chosen |= dict.fromkeys(runs_named(frames, name))
    return [*chosen]


def runs_named(frames: RunFrames, name: str) -> list[str]:
    """Returns the ids of the runs that one name means. Raises RunFolderError as `choose_runs`."""
    of_sweep = [run_id for run_id, record in frames.records.items() if name in sweeps_of(record)]
    known = {**dict.fromkeys(frames.records), **frames.damaged}
    runs = [name] if name in known else [run for run in known if name.strip() and run.startswith(name)]
    if of_sweep and runs:
        raise RunFolderError(f"{name}: ambiguous; a sweep of {len(of_sweep)} runs, and {begins(runs)}")
    if len(runs) > 1:
        raise RunFolderError(f"{name}: ambiguous; {begins(runs)}")
    if runs and runs[0] in frames.damaged:
        raise RunFolderError(f"{name}: the run is damaged: {frames.damaged[runs[0]]}")
    return of_sweep or runs or _unknown(frames, name)


def begins(runs: Sequence[str]) -> str:
    """Says which runs a name may mean too."""
    return (
        f"the run {runs[0]}" if len(runs) == 1 else f"the beginning of {len(runs)} runs: {shortened(sorted(runs))}"
    )


def _unknown(frames: RunFrames, name: str) -> list[str]:
    if not frames.records and not frames.damaged:
        raise RunFolderError(f"{name}: {no_runs_words(frames.source)}")
    sweeps = sorted({sweep for record in frames.records.values() for sweep in sweeps_of(record)})
    runs = sorted({**frames.records, **frames.damaged})
    said = f"{name}: " if name.strip() else "an empty name: "
    raise RunFolderError(
        f"{said}neither a run nor a sweep; sweeps are {', '.join(sweeps) or 'none'}, runs {shortened(runs)}"
        f"{nearest(name, [*sweeps, *runs])}"
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean ...?" with the names that come close, "" where none does."""
    close = difflib.get_close_matches(name, [*known], n=3)
    return f"; did you mean {', '.join(close)}?" if close else ""


def shortened(names: Sequence[str]) -> str:
    """Lists the first few names."""
    return f"{', '.join(names[:SHOWN]) or 'none'}{' ...' if len(names) > SHOWN else ''}"


def no_runs_words(source: str) -> str:
    """Says that a folder or project holds no runs, and where some are near by."""
    path = Path(source)
    if path.is_dir():
        near = [*path.glob("*/*/run.json"), *path.parent.glob("run.json"), *path.parent.glob("*/run.json")]
        hint = f"; there are some in {near[0].parent.parent}" if near else ""
        return f"no runs in {source} (a run is a folder with a run.json){hint}"
    return f"no runs in {source}" + ("" if path.exists() or "/" in source else ", which doesn't exist")
