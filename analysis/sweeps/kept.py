"""Keeps what the runs of a sweep found in a small file that is versioned with the code, and reads it again.

The first line of analysis/results/<sweep>.jsonl says how it was made, each further line is a run: its arm and
seed, avg@n at every evaluated step, how many samples of each prompt were right at the last one, and the training
curves of the metrics that klear_lab/metrics.py marks as kept. `python -m analysis keep SWEEP` writes it.
"""

import json
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.arms import as_words, describe_arm
from analysis.draw.output import make_folder, replace_file
from analysis.runs.choose import nearest
from analysis.runs.confounds import find_confounds
from analysis.runs.damage import DamagedRunsError
from analysis.runs.files import RunFolderError, read_probes
from analysis.runs.frames import RunFrames, right_at_last, sweeps_of, world_words
from klear_lab.config import CHANGES_NO_RESULT
from klear_lab.metrics import kept_names

FOLDER = Path(__file__).parents[1] / "results"
SWEEPS = Path(__file__).parents[2] / "sweeps"


@dataclass(frozen=True)
class KeptSweep:
    """Holds what is kept of a sweep.

    about: sweep, command (several: a list), world, scale, git_commit, versions, hardware, unfinished, and what
    `find_confounds` found: confounded and differing. runs: a mapping for each run, see `keep_run`.
    """

    about: dict[str, Any]
    runs: list[dict[str, Any]]

    def scores(self) -> pd.DataFrame:
        """Returns avg@n at each run's last step. Columns: arm, seed, the swept keys as typed, benchmark, score."""
        keys = dict.fromkeys(key for run in self.runs for key in run["arm"])
        rows = []
        for run in self.runs:
            for benchmark, found in run["scores"].items():
                last = max(found, key=int)
                words = {key: as_words(value) for key, value in run["arm"].items()}
                arm = {"arm": describe_arm(run["arm"]), "seed": run["seed"], **words}
                rows.append({**arm, "benchmark": benchmark, "score": found[last]})
        return pd.DataFrame(rows, columns=["arm", "seed", *keys, "benchmark", "score"])


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
    arm = record.get("arm") or {"clip_method": frames.configs[run_id]["clip_method"]["name"]}
    about = about_runs(frames, [run_id], run_id)
    return KeptSweep(
        {**about, "unfinished": {}, "confounded": {}, "differing": {}}, keep_runs(frames, {run_id: arm})
    )


def keep_runs(frames: RunFrames, arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns what is kept of each run, in order of arm and seed; arms are by run_id. Raises DamagedRunsError."""
    runs, damaged = [], {}
    for run_id, arm in arms.items():
        try:
            runs.append(keep_run(frames, run_id, arm))
        except RunFolderError as error:
            damaged[run_id] = str(error)
    if damaged:
        raise DamagedRunsError(damaged)
    return sorted(runs, key=lambda run: (json.dumps(run["arm"]), run["seed"]))


def about_runs(frames: RunFrames, run_ids: Sequence[str], name: str) -> dict[str, Any]:
    """Returns what a kept sweep says of how its runs were made; a list where runs differ in it."""
    records, configs = ([held[i] for i in run_ids] for held in (frames.records, frames.configs))
    values: dict[str, list[Any]] = {
        "world": [world_words(config)[0] for config in configs[:1]],
        "scale": [config.get("scale") for config in configs],
        **{key: [record.get(key) for record in records] for key in ("git_commit", "versions", "hardware")},
    }
    about: dict[str, Any] = {"sweep": name, "command": commands_of(records, name)}
    for key, found in values.items():
        different = [value for n, value in enumerate(found) if value not in found[:n]]
        about[key] = different[0] if len(different) == 1 else different
    return about


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
    words = shlex.split(command)[3:]
    changing = [
        word for word in words if word.lstrip("+~").partition("=")[0].split(".")[0] not in CHANGES_NO_RESULT
    ]
    asked = {word for word in changing if not word.startswith(("-", "hydra"))}
    return (SWEEPS / f"{name}.yaml").exists() and asked == {f"sweep={name}"}


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


def keep_run(frames: RunFrames, run_id: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is kept of one run.

    run_id, arm, seed, seconds (computed or fetched, all stages), tokens (sampled in RL), samples (n of avg@n),
    scores by benchmark and step, right (by benchmark: right samples of each prompt at the last step, prompts in
    the order of their ids), curves (by metric: one value an RL step), most_clipped (by region: the ten tokens
    clipped most in all steps, with counts), data (what each preparation step took, kept and dropped).

    Of a run from wandb, which has no such files, `right` and `most_clipped` are empty.
    """
    own = frames.scores[frames.scores["run_id"] == run_id]
    metrics = frames.metrics[(frames.metrics["run_id"] == run_id) & (frames.metrics["stage"] == "rl")]
    record, row = frames.records[run_id], frames.runs[frames.runs["run_id"] == run_id]
    where, samples = row["folder"].iloc[0], own["samples"].max()
    folder = where if isinstance(where, Path) else None
    return {
        "run_id": run_id,
        "arm": dict(arm),
        "seed": record["seed"],
        "seconds": round(float(row["seconds"].iloc[0])),
        "tokens": tokens_sampled(metrics),
        "samples": 0 if pd.isna(samples) else int(samples),
        "scores": {
            str(name): {
                str(step): round(score, 5) for step, score in zip(group["step"], group["score"], strict=True)
            }
            for name, group in own.groupby("benchmark")
        },
        "right": right_at_last(folder) if folder else {},
        "curves": curves_in(metrics),
        "most_clipped": most_clipped(read_probes(folder) if folder else []),
        "data": record.get("data") or [],
    }


def tokens_sampled(metrics: pd.DataFrame) -> int:
    """Returns the response tokens of all rollouts of a run; 0 where it had no RL, or logs of another kind."""
    parts = ["time/rollout_s", "time/reward_s", "time/train_s"]
    if not {*parts, "perf/tokens_per_s"} <= {*metrics.columns}:
        return 0
    return round(float((metrics["perf/tokens_per_s"] * metrics[parts].sum(axis=1)).sum()))


def most_clipped(probes: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Returns the ten tokens that were clipped most over all steps, as text, for each clip region."""
    totals: dict[str, Counter[str]] = {"low": Counter(), "high": Counter()}
    for line in probes:
        for region, tokens in line["most_clipped"].items():
            totals[region].update({token["text"]: token["count"] for token in tokens})
    return {region: dict(counts.most_common(10)) for region, counts in totals.items()}


def curves_in(metrics: pd.DataFrame) -> dict[str, list[float | None]]:
    """Returns each kept metric's values at RL steps 1, 2, ..., to four digits; None where it has none."""
    names = [name for name in kept_names() if name in metrics and metrics[name].notna().any()]
    if not names:
        return {}
    values_TM = metrics.set_index("step")[names].reindex(range(1, int(metrics["step"].max()) + 1)).to_numpy()
    return {
        name: [None if math.isnan(value) else float(f"{value:.4g}") for value in values_T]
        for name, values_T in zip(names, values_TM.T.tolist(), strict=True)
    }


def command_of(sweep: str) -> str:
    """Returns the command that makes a sweep's runs."""
    return f"python -m klear_lab.run sweep={sweep} launcher=joblib -m"


def write_results(kept: KeptSweep, folder: Path) -> Path:
    """Writes a sweep's file, the same bytes for the same runs. Raises OutputError."""
    make_folder(folder)
    path = results_file(folder, kept.about["sweep"])
    lines = [json.dumps(line, separators=(",", ":")) for line in (kept.about, *kept.runs)]
    replace_file(path, ("\n".join(lines) + "\n").encode())
    return path


def results_file(folder: Path, sweep: str) -> Path:
    """Returns the path of a sweep's file; a sweep that was never named may have a slash in its name."""
    return folder / f"{sweep.replace('/', '%2F')}.jsonl"


def read_results(path: Path) -> KeptSweep:
    """Reads what `write_results` wrote. Raises RunFolderError, which names the file, for anything else."""
    try:
        about, *runs = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        lacks = {"sweep"} - about.keys()
        for run in runs:
            lacks |= {"arm", "seed", "scores", "curves"} - run.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{path}: no kept results in it ({error}). Keep the sweep again.") from error
    if lacks or not runs:
        raise RunFolderError(f"{path}: lacks {', '.join(sorted(lacks)) or 'runs'}. Keep the sweep again.")
    return KeptSweep(about, runs)


def value_order(sweep: str) -> dict[str, list[str]]:
    """Returns each swept key's values in the order of the sweep's file, as text; {} for a sweep without one."""
    path = SWEEPS / f"{sweep}.yaml"
    if not path.exists():
        return {}
    params = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    return {key: str(values).split(",") for key, values in params.items()}


def in_order(sweep: str, key: str, values: Iterable[Any]) -> list[Any]:
    """Returns the different values of a swept key, in the order of the sweep's file."""
    order = [as_number(word) for word in value_order(sweep).get(key, [])]
    places = {value: as_number(as_words(value)) for value in values}

    def place(value: Any) -> tuple[int, str]:
        return (order.index(places[value]) if places[value] in order else len(order), as_words(value))

    return sorted(places, key=place)


def as_number(word: str) -> float | str:
    """Returns a word as a number where it is one: a sweep's file may write 2e-4 for 0.0002."""
    try:
        return float(word)
    except ValueError:
        return word


def world_of(kept: KeptSweep) -> str:
    """Returns the world that the numbers are about; results kept before that was noted are of the embedded one."""
    return str(kept.about.get("world", "embedded world, tiny model"))


def benchmarks_of(kept: KeptSweep) -> list[str]:
    """Returns the benchmarks that any run of the sweep has, in order of their names."""
    return sorted({name for run in kept.runs for name in run["scores"]})


def caveats(kept: KeptSweep) -> list[str]:
    """Says what a reader must know of a sweep's runs: which are left out, and what arms differ in unasked."""
    about, lines = kept.about, []
    if about.get("unfinished"):
        words = ", ".join(f"{run_id} ({status})" for run_id, status in about["unfinished"].items())
        lines.append(f"Not finished and left out: {words}.")
    for run_id, keys in about.get("confounded", {}).items():
        words = ", ".join(f"{key} = {own} (others of its arm: {usual})" for key, (own, usual) in keys.items())
        lines.append(f"Confounded and left out: {run_id}, {words}.")
    for key, values in about.get("differing", {}).items():
        lines.append(f"Confounded: arms differ in {key} too ({', '.join(values)}), which isn't swept.")
    return lines


def how_made(kept: KeptSweep) -> str:
    """Says how many runs there are, what they took one by one, on which machine, and of which code."""
    found, commits = kept.about.get("hardware"), kept.about.get("git_commit")
    device = " ".join(str(found[key]) for key in ("device", "device_name") if key in found) if found else ""
    device = "several machines" if isinstance(found, list) else device or "machine not recorded"
    minutes = f"{sum(run.get('seconds', 0) for run in kept.runs) / 60:.0f} minutes of run time ({device})"
    known = [str(commit) for commit in (commits if isinstance(commits, list) else [commits]) if commit]
    code = f"commit{'s' if len(known) > 1 else ''} {', '.join(known) or 'not recorded'}"
    return f"{len(kept.runs)} run{'s' if len(kept.runs) > 1 else ''}, {minutes}, {code}"


def scale_of(kept: KeptSweep) -> str:
    """Returns the scale of the runs; results kept before that was noted are of the small one."""
    found = kept.about.get("scale", "small")
    return " and ".join(map(str, found)) if isinstance(found, list) else str(found)


def commands_words(kept: KeptSweep) -> str:
    """Returns the command that makes the runs; a line for each where there were several."""
    found = kept.about.get("command") or command_of(kept.about["sweep"])
    return found if isinstance(found, str) else "\n".join(found)
