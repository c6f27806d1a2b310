"""Keeps which sweeps are settled in batches of seeds, and puts their runs together with kept results.

settled.json in the folder of the runs names each such sweep, with the kept runs that count: those that today's
settings would make again, by their run ids, and with the settings beside the sweep's own that the batches were run
with. Everything else that a verdict needs is in the runs. Claims of such a sweep are judged by always-valid
evidence once they have seeds beyond the first look, because those came while somebody looked.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.arms import as_words
from analysis.draw.output import make_folder, replace_file
from analysis.errors import RunFolderError
from analysis.runs.frames import RunFrames, sweeps_of
from analysis.sweeps.from_runs import keep_sweep, one_or_all, setting
from analysis.sweeps.kept import KeptSweep, command_of, read_results, results_file, value_order

NAME = "settled.json"
Settled = dict[str, dict[str, list[str]]]  # sweep -> {"kept": run ids, "settings": overrides}


def read_settled(folder: Path) -> Settled:
    """Reads which sweeps are settled in batches; none without the file. Raises RunFolderError if damaged."""
    path = folder / NAME
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(sweep): {"kept": [*map(str, one["kept"])], "settings": [*map(str, one.get("settings", []))]}
            for sweep, one in found.items()
        }
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path}: doesn't say which sweeps are settled in batches ({error})") from error


def add_settled(folder: Path, sweep: str, noted: Mapping[str, Sequence[str]]) -> None:
    """Notes that a sweep is settled in batches, before the first of them. What was noted earlier stays."""
    found = read_settled(folder)
    if sweep in found:
        return
    make_folder(folder)
    text = json.dumps({**found, sweep: {key: [*noted[key]] for key in ("kept", "settings")}}, indent=1) + "\n"
    replace_file(folder / NAME, text.encode())


def settled_sweep(
    frames: RunFrames, sweep: str, noted: Mapping[str, Sequence[str]], results: Path
) -> KeptSweep | None:
    """Returns the runs at hand of a sweep, with kept ones for arms and seeds that have none; None without any."""
    kept_ids = noted["kept"]
    finished = any(
        record["status"] == "finished" and sweep in sweeps_of(record) for record in frames.records.values()
    )
    own = with_all_keys(keep_sweep(frames, sweep), frames) if finished else None
    path = results_file(results, sweep)
    earlier = read_results(path) if kept_ids and path.exists() else None
    runs = [*own.runs] if own else []
    at_hand = {arm_and_seed(run) for run in runs}
    if earlier:
        counted = [run for run in earlier.runs if run.get("run_id") in kept_ids]
        runs += [run for run in counted if arm_and_seed(run) not in at_hand]
    if not runs:
        return None
    ordered = sorted(runs, key=lambda run: (json.dumps(run["arm"]), run["seed"]))
    about = about_all([one.about for one in (earlier, own) if one])
    first_look = [*(earlier.about.get("first_look", kept_ids) if earlier else [])]
    return KeptSweep(
        {**about, "first_look": first_look, "command": commands_of(sweep, noted["settings"])}, ordered
    )


def sweep_to_keep(frames: RunFrames, sweep: str, results: Path) -> KeptSweep:
    """Returns what to keep of a sweep: its runs, with the kept ones that count where it grew in batches.

    Raises RunFolderError where it has no finished run, or `results` lacks a kept run that counts.
    """
    settled = read_settled(Path(frames.source))
    if sweep not in settled:
        return keep_sweep(frames, sweep)
    found = settled_sweep(frames, sweep, settled[sweep], results) or keep_sweep(frames, sweep)
    missing = {*settled[sweep]["kept"]} - {run["run_id"] for run in found.runs} - {*frames.records}
    if missing:
        raise RunFolderError(
            f"{results_file(results, sweep)}: lacks {len(missing)} kept runs that {NAME} counts as the first look "
            f"of {sweep}, such as {min(missing)}. Name with --out the folder that has them."
        )
    return found


def about_all(abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what is said of runs kept earlier and of those at hand, the last said where only one can hold."""
    whole = {**abouts[-1]}
    for key in ("world", "scale", "git_commit", "versions", "hardware"):
        whole[key] = one_or_all([value for about in abouts for value in listed(about.get(key))])
    return whole


def commands_of(sweep: str, settings: Sequence[str]) -> list[str]:
    """Returns the commands that make a settled sweep's runs: its first look, and its batches with their settings.

    Each batch recorded a command of its own, and a run that two sweeps share that of the first.
    """
    extra = ["--with", *settings] if settings else []
    return [command_of(sweep), shlex.join(["python", "-m", "klear_lab.settle", sweep, *extra])]


def listed(value: Any) -> list[Any]:
    """Returns what runs have said: several things as they are, one as a list of it."""
    return value if isinstance(value, list) else [value]


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
