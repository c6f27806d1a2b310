"""Makes kept results from runs: what the finished runs of a sweep found, without confounded ones."""

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.arms import method_name
from analysis.errors import RunFolderError
from analysis.runs.choose import nearest
from analysis.runs.confounds import find_confounds
from analysis.runs.damage import DamagedRunsError
from analysis.runs.files import read_probes
from analysis.runs.frames import RunFrames, right_at_last, sweeps_of, world_words
from analysis.sweeps.kept import SWEEPS, KeptSweep, command_of
from analysis.sweeps.logged import logged_by_run
from klear_lab.identity import CHANGES_NO_RESULT


def keep_sweep(frames: RunFrames, sweep: str) -> KeptSweep:
    """Returns the finished runs of a sweep, without confounded ones.

    Raises RunFolderError where there are none, and DamagedRunsError where a run's probes can't be read.
    """
    members = {i: record for i, record in frames.records.items() if sweep in sweeps_of(record)}
    finished = [i for i, record in members.items() if record["status"] == "finished"]
    if not finished:
        raise RunFolderError(none_finished(frames, sweep, [*members]))
    arms = whole_arms(frames, {run_id: sweeps_of(members[run_id])[sweep] for run_id in finished})
    found = find_confounds({run_id: frames.configs[run_id] for run_id in finished}, arms)
    runs = keep_runs(frames, {run_id: arms[run_id] for run_id in finished if run_id not in found.runs})
    about = about_runs(frames, finished, sweep)
    about["unfinished"] = {i: record["status"] for i, record in members.items() if i not in finished}
    about["confounded"], about["differing"] = found.runs, found.arms
    return KeptSweep(about, runs)


def keep_single(frames: RunFrames, run_id: str) -> KeptSweep:
    """Returns one finished run as a sweep of one arm, named after it. Raises RunFolderError for any other run."""
    record = frames.records[run_id]
    if record["status"] != "finished":
        raise RunFolderError(f"run {run_id} is not finished: {record['status']}")
    arm = record.get("arm") or {"clip_method": method_name(frames.configs[run_id]["clip_method"])}
    about = about_runs(frames, [run_id], run_id)
    return KeptSweep(
        {**about, "unfinished": {}, "confounded": {}, "differing": {}}, keep_runs(frames, {run_id: arm})
    )


def keep_runs(frames: RunFrames, arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what is kept of each run, in order of arm and seed; arms are by run_id. Raises DamagedRunsError."""
    runs, damaged = [], {}
    logged = logged_by_run(frames.metrics, frames.scores, arms)
    rows = frames.runs.set_index("run_id")
    where, seconds = rows["folder"].to_dict(), rows["seconds"].to_dict()
    for run_id, arm in arms.items():
        try:
            runs.append(keep_run(frames.records[run_id], arm, logged[run_id], where[run_id], seconds[run_id]))
        except RunFolderError as error:
            damaged[run_id] = str(error)
    if damaged:
        raise DamagedRunsError(damaged)
    return sorted(runs, key=lambda run: (json.dumps(run["arm"]), run["seed"]))


def about_runs(frames: RunFrames, run_ids: Sequence[str], name: str) -> dict[str, Any]:
    """Returns what a kept sweep says of how its runs were made; a list where runs differ in it."""
    records, configs = ([held[i] for i in run_ids] for held in (frames.records, frames.configs))
    values: dict[str, list[Any]] = {
        "world": [world_words(config)[0] for config in configs],
        "scale": [config.get("scale") for config in configs],
        **{key: [record.get(key) for record in records] for key in ("git_commit", "versions", "hardware")},
    }
    about: dict[str, Any] = {"sweep": name, "command": commands_of(records, name)}
    return {**about, **{key: one_or_all(found) for key, found in values.items()}}


def one_or_all(values: Sequence[Any]) -> Any:
    """Returns the value where all are equal, else the list of the different ones."""
    different = [value for n, value in enumerate(values) if value not in values[:n]]
    return different[0] if len(different) == 1 else different


def commands_of(records: Iterable[Mapping[str, Any]], name: str) -> str | list[str]:
    """Returns the command that makes a sweep's runs, as they recorded it, several where they did.

    A prepared sweep's is that of its file unless its runs were given more: it then is shorter, and the same.
    """
    recorded = [*dict.fromkeys(shlex.join(record["command"]) for record in records if record.get("command"))]
    if not recorded or all(is_plain(command, name) for command in recorded):
        return command_of(name)
    return recorded[0] if len(recorded) == 1 else recorded


def is_plain(command: str, name: str) -> bool:
    """Tells whether a command asks for a prepared sweep, and beside that only for what changes no result."""
    return (SWEEPS / f"{name}.yaml").exists() and {*changes(command)} == {f"sweep={name}"}


def changes(command: str) -> list[str]:
    """Returns the words of a run's command that can change a result."""
    words = shlex.split(command)[3:]
    named = [word for word in words if not word.startswith(("-", "hydra"))]
    return [word for word in named if can_change(word)]


def can_change(word: str) -> bool:
    """Tells whether an override sets a key that can change a result."""
    return word.lstrip("+~").partition("=")[0].split(".")[0] not in CHANGES_NO_RESULT


def whole_arms(frames: RunFrames, arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns arms that all have the same keys; a value that an arm lacks is read from its run's config."""
    keys = dict.fromkeys(key for arm in arms.values() for key in arm)
    return {
        run_id: {key: arm[key] if key in arm else setting(frames.configs[run_id], key) for key in keys}
        for run_id, arm in arms.items()
    }


def setting(config: Mapping[str, Any], key: str) -> Any:
    """Returns a config's value of a dotted key, a group's name for its option; None where there is none."""
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("name") if isinstance(value, Mapping) else value


def none_finished(frames: RunFrames, sweep: str, members: Sequence[str]) -> str:
    """Says that a sweep has no finished run, and what to do about it."""
    if (SWEEPS / f"{sweep}.yaml").exists():
        return f"no finished run of sweep {sweep}; make them: {command_of(sweep)}"
    if members:
        words = ", ".join(f"{run_id} {frames.records[run_id]['status']}" for run_id in members)
        return f"no finished run of sweep {sweep}: {words}"
    known = sorted({name for record in frames.records.values() for name in sweeps_of(record)})
    if not known:
        return f"no finished run of sweep {sweep}: no run in {frames.source} belongs to a sweep"
    return f"no finished run of sweep {sweep}; there are runs of {', '.join(known)}{nearest(sweep, known)}"


def keep_run(
    record: Mapping[str, Any], arm: Mapping[str, Any], logged: Mapping[str, Any], where: Path | str, seconds: float
) -> dict[str, Any]:
    """Returns what is kept of one run, of whose metrics and scores `logged` has what is kept.

    run_id, arm, seed, seconds (computed or fetched, all stages), tokens (sampled in RL), samples (n of avg@n),
    scores by benchmark and step, right (by benchmark: right samples of each prompt at the last step, prompts in
    the order of their ids), curves (by metric: one value an RL step), most_clipped (by region: the ten tokens
    clipped most in all steps, with counts), data (what each preparation step took, kept and dropped), sft_loss (at
    each logged SFT step), sft_key (what the stage cache knows its SFT by: settings, data and code),
    evaluation (seconds of all evaluations, computed or fetched).

    Of a run from wandb, which has no such files, `right` and `most_clipped` are empty.
    """
    here = where if isinstance(where, Path) else None
    return {
        "run_id": record["run_id"],
        "arm": dict(arm),
        "seed": record["seed"],
        "seconds": round(seconds),
        "tokens": logged["tokens"],
        "samples": logged["samples"],
        "scores": logged["scores"],
        "right": {name: [*own.values()] for name, own in (right_at_last(here) if here else {}).items()},
        "curves": logged["curves"],
        "most_clipped": most_clipped(read_probes(here) if here else []),
        "data": record.get("data") or [],
        "sft_loss": logged["sft_loss"],
        "sft_key": ((record.get("stages") or {}).get("sft") or {}).get("cache_key"),
        "evaluation": round(float(((record.get("stages") or {}).get("evaluation") or {}).get("seconds") or 0)),
    }


def most_clipped(probes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Returns the ten tokens that were clipped most over all steps, as text, for each clip region."""
    totals: dict[str, Counter[str]] = {"low": Counter(), "high": Counter()}
    for line in probes:
        for region, tokens in line["most_clipped"].items():
            totals[region].update({token["text"]: token["count"] for token in tokens})
    return {region: dict(counts.most_common(10)) for region, counts in totals.items()}
