"""Keeps what the runs of a sweep found in a small file that is versioned with the code, and reads it again.

The first line of analysis/results/<sweep>.jsonl says how it was made, each further line is a run: its arm and
seed, avg@n at every evaluated step, how many samples of each prompt were right at the last one, and the training
curves of the metrics that klear_lab/metrics.py marks as kept. `python -m analysis keep SWEEP` writes it.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.arms import as_words, describe_arm
from analysis.runs.confounds import find_confounds
from analysis.runs.files import RunFolderError, read_probes
from analysis.runs.frames import RunFrames, right_at_last, world_words
from klear_lab.metrics import kept_names

FOLDER = Path(__file__).parents[1] / "results"
SWEEPS = Path(__file__).parents[2] / "sweeps"


@dataclass(frozen=True)
class KeptSweep:
    """Holds what is kept of a sweep.

    about: sweep, command, world, git_commit, versions, hardware, unfinished, and what `find_confounds` found:
    confounded and differing. runs: a mapping for each run, see `keep_run`.
    """

    about: dict[str, Any]
    runs: list[dict[str, Any]]

    def scores(self) -> pd.DataFrame:
        """Returns avg@n at each run's last step. Columns: arm, seed, the swept keys as typed, benchmark, score."""
        rows = []
        for run in self.runs:
            for benchmark, found in run["scores"].items():
                last = max(found, key=int)
                words = {key: as_words(value) for key, value in run["arm"].items()}
                arm = {"arm": describe_arm(run["arm"]), "seed": run["seed"], **words}
                rows.append({**arm, "benchmark": benchmark, "score": found[last]})
        return pd.DataFrame(rows)


def keep_sweep(frames: RunFrames, sweep: str) -> KeptSweep:
    """Returns the finished runs of a sweep, without confounded ones.

    Raises RunFolderError where there are none.
    """
    members = {i: record for i, record in frames.records.items() if sweep in record.get("sweeps", {})}
    finished = [i for i, record in members.items() if record["status"] == "finished"]
    if not finished:
        raise RunFolderError(f"no finished run of sweep {sweep}; make them: {command_of(sweep)}")
    arms = {run_id: members[run_id]["sweeps"][sweep] for run_id in finished}
    found = find_confounds({run_id: frames.configs[run_id] for run_id in finished}, arms)
    runs = [keep_run(frames, run_id, arms[run_id]) for run_id in finished if run_id not in found.runs]
    runs.sort(key=lambda run: (json.dumps(run["arm"]), run["seed"]))
    about: dict[str, Any] = {"sweep": sweep, "command": command_of(sweep)}
    about["world"] = world_words(frames.configs[finished[0]])[0]
    for key in ("git_commit", "versions", "hardware"):
        values = [members[i].get(key) for i in finished]
        different = [value for n, value in enumerate(values) if value not in values[:n]]
        about[key] = different[0] if len(different) == 1 else different
    about["unfinished"] = {i: record["status"] for i, record in members.items() if i not in finished}
    about["confounded"], about["differing"] = found.runs, found.arms
    return KeptSweep(about, runs)


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
        "samples": int(samples),
        "scores": {
            str(name): {
                str(step): round(score, 5) for step, score in zip(group["step"], group["score"], strict=True)
            }
            for name, group in own.groupby("benchmark")
        },
        "right": right_at_last(folder) if folder else {},
        "curves": curves_in(metrics),
        "most_clipped": most_clipped(read_probes(folder) if folder else []),
        "data": record.get("data", []),
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
    """Writes a sweep's file, the same bytes for the same runs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kept.about['sweep']}.jsonl"
    lines = [json.dumps(line, separators=(",", ":")) for line in (kept.about, *kept.runs)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read_results(path: Path) -> KeptSweep:
    """Reads what `write_results` wrote."""
    about, *runs = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
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
    if about["unfinished"]:
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
    found, commits = kept.about["hardware"], kept.about["git_commit"]
    device = f"{found['device']} {found['device_name']}" if isinstance(found, dict) else "several machines"
    minutes = f"{sum(run['seconds'] for run in kept.runs) / 60:.0f} minutes of run time ({device})"
    code = f"commits {', '.join(commits)}" if isinstance(commits, list) else f"commit {commits}"
    return f"{len(kept.runs)} runs, {minutes}, {code}"
