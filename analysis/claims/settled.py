"""Keeps which sweeps are settled in batches of seeds, and puts their runs together with kept results.

settled.json in the folder of the runs names each such sweep, and the kept runs that count as its first look: those
that today's settings would make again, by their run ids. Everything else that a verdict needs is in the runs. All
claims of such a sweep are judged by always-valid evidence, because their seeds grew while somebody looked.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.arms import as_words
from analysis.draw.output import make_folder, replace_file
from analysis.runs.files import RunFolderError
from analysis.runs.frames import RunFrames, sweeps_of
from analysis.sweeps.from_runs import keep_sweep, setting
from analysis.sweeps.kept import KeptSweep, read_results, results_file, value_order

NAME = "settled.json"
Settled = dict[str, dict[str, list[str]]]  # sweep -> {"kept": run ids}


def read_settled(folder: Path) -> Settled:
    """Reads which sweeps are settled in batches; none without the file. Raises RunFolderError if damaged."""
    path = folder / NAME
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(sweep): {"kept": [str(run_id) for run_id in one["kept"]]} for sweep, one in found.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path}: doesn't say which sweeps are settled in batches ({error})") from error


def add_settled(folder: Path, sweep: str, kept: Sequence[str]) -> None:
    """Notes that a sweep is settled in batches, before the first of them. What was noted earlier stays."""
    found = read_settled(folder)
    if sweep in found:
        return
    make_folder(folder)
    text = json.dumps({**found, sweep: {"kept": [*kept]}}, indent=1) + "\n"
    replace_file(folder / NAME, text.encode())


def settled_sweep(frames: RunFrames, sweep: str, kept_ids: Sequence[str], results: Path) -> KeptSweep | None:
    """Returns the runs at hand of a sweep, with kept ones for arms and seeds that have none; None without any."""
    finished = any(
        record["status"] == "finished" and sweep in sweeps_of(record) for record in frames.records.values()
    )
    own = with_all_keys(keep_sweep(frames, sweep), frames) if finished else None
    path = results_file(results, sweep)
    earlier = read_results(path) if kept_ids and path.exists() else None
    if own is None and earlier is None:
        return None
    runs = [*own.runs] if own else []
    at_hand = {arm_and_seed(run) for run in runs}
    if earlier:
        counted = [run for run in earlier.runs if run.get("run_id") in kept_ids]
        runs += [run for run in counted if arm_and_seed(run) not in at_hand]
    about = (own or earlier).about  # type: ignore[union-attr]
    ordered = sorted(runs, key=lambda run: (json.dumps(run["arm"]), run["seed"]))
    return KeptSweep({**about, "settled": True}, ordered) if ordered else None


def with_all_keys(kept: KeptSweep, frames: RunFrames) -> KeptSweep:
    """Returns a sweep whose arms have every key that its file varies, also those that a batch gave one value."""
    varied = [key for key, values in value_order(kept.about["sweep"]).items() if len(values) > 1 and key != "seed"]
    runs = []
    for run in kept.runs:
        config = frames.configs[run["run_id"]]
        missing = {key: setting(config, key) for key in varied if key not in run["arm"]}
        runs.append(
            {
                **run,
                "arm": {key: {**missing, **run["arm"]}[key] for key in {**dict.fromkeys(varied), **run["arm"]}},
            }
        )
    return KeptSweep(kept.about, runs)


def arm_and_seed(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns what tells a run from the others of its sweep."""
    return (run["seed"], *sorted((key, as_words(value)) for key, value in run["arm"].items()))
