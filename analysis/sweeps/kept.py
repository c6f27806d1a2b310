"""Kept results: types, files and words of what the runs of a sweep found, versioned with the code.

The first line of analysis/results/<sweep>.jsonl says how it was made, each further line is a run: its arm and
seed, avg@n at every evaluated step, how many samples of each prompt were right at the last one, and the training
curves of the metrics that klear_lab/metrics.py marks as kept. `python -m analysis keep SWEEP` writes it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.arms import as_words, describe_arm
from analysis.draw.output import make_folder, replace_file
from analysis.errors import RunFolderError
from analysis.runs.files import parsed_line

FOLDER = Path(__file__).parents[1] / "results"
SWEEPS = Path(__file__).parents[2] / "sweeps"
EMBEDDED = "embedded world, tiny model"


@dataclass(frozen=True)
class KeptSweep:
    """Holds what is kept of a sweep.

    about: sweep, command (several: a list), world, scale, git_commit, versions, hardware, unfinished, and what
    `find_confounds` found: confounded and differing; of a sweep that grew in batches also first_look, the ids of
    runs that were there before. runs: a mapping for each run, see `keep_run`.
    """

    about: dict[str, Any]
    runs: list[dict[str, Any]]

    @property
    def first_look(self) -> "KeptSweep | None":
        """Returns the runs that were there before seeds came in batches that were looked at; None if none came."""
        ids = self.about.get("first_look")
        return None if ids is None else KeptSweep(self.about, [r for r in self.runs if r.get("run_id") in ids])

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
        about, *runs = map(parsed_line, path.read_text(encoding="utf-8").splitlines())
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
    params = config_file(SWEEPS / f"{sweep}.yaml").get("hydra", {}).get("sweeper", {}).get("params", {})
    return {key: str(values).split(",") for key, values in params.items()}


def config_file(path: Path) -> Mapping[str, Any]:
    """Returns what a config file says, {} without one; it is parsed once for each state that it has."""
    try:
        return parsed_config(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return {}


@lru_cache(maxsize=256)
def parsed_config(path: Path, _: int) -> Mapping[str, Any]:
    """Parses a config file, since parsing takes milliseconds and each run of a sweep asks."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


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
    """Returns the world that the numbers are about, several where runs differ in it.

    Results kept before that was noted are of the embedded one.
    """
    found = kept.about.get("world", EMBEDDED)
    return "; ".join(found) if isinstance(found, list) else str(found)


def in_plural(world: str) -> str:
    """Returns a world's name as it is said of several sweeps; the embedded worlds, of any tiny model, have one."""
    return world.replace(EMBEDDED, "the embedded worlds, tiny models")


def benchmarks_of(kept: KeptSweep) -> list[str]:
    """Returns the benchmarks that any run of the sweep has, in order of their names."""
    return sorted({name for run in kept.runs for name in run["scores"]})


def caveats(kept: KeptSweep) -> list[str]:
    """Says what a reader must know of a sweep's runs: which are left out, and what arms differ in unasked."""
    unfinished = kept.about.get("unfinished", {})
    words = ", ".join(f"{run_id} ({status})" for run_id, status in unfinished.items())
    return [*([f"Not finished and left out: {words}."] if unfinished else []), *confounds_words(kept)]


def confounds_words(kept: KeptSweep) -> list[str]:
    """Says which runs are confounded, and in what arms differ unasked."""
    about, lines = kept.about, []
    for run_id, keys in about.get("confounded", {}).items():
        words = ", ".join(f"{key} = {own} (others of its arm: {usual})" for key, (own, usual) in keys.items())
        lines.append(f"Confounded and left out: {run_id}, {words}.")
    for key, values in about.get("differing", {}).items():
        lines.append(f"Confounded: arms differ in {key} too ({', '.join(values)}), which isn't swept.")
    return lines + unlike_starts(kept)


def named_caveats(sweeps: Iterable[KeptSweep]) -> list[str]:
    """Returns the caveats of some sweeps, each behind its sweep's name."""
    return [f"{kept.about['sweep']}: {line}" for kept in sweeps for line in caveats(kept)]


def unlike_starts(kept: KeptSweep) -> list[str]:
    """Names seeds whose arms start from SFTs of the same settings, data and code, and other weights all the same.

    Processors round otherwise, so each machine makes an SFT checkpoint of its own; a difference between arms from
    two of them holds the difference of these too.
    """
    losses: dict[tuple[int, str], set[str]] = {}
    for run in kept.runs:
        if run.get("sft_key") and run.get("sft_loss"):
            losses.setdefault((run["seed"], run["sft_key"]), set()).add(f"{run['sft_loss'][-1]:.4g}")
    unlike = {seed: found for (seed, _), found in sorted(losses.items()) if len(found) > 1}
    return [
        f"Confounded: seed {seed}'s arms start from different SFT checkpoints of the same settings, made on "
        f"several machines or by several versions of torch (last SFT loss {', '.join(sorted(found))})."
        for seed, found in unlike.items()
    ]


def how_made(kept: KeptSweep) -> str:
    """Says how many runs there are, what they took one by one, on which machine, and of which code."""
    found, commits = kept.about.get("hardware"), kept.about.get("git_commit")
    device = " ".join(str(found[key]) for key in ("device", "device_name") if key in found) if found else ""
    device = "several machines" if isinstance(found, list) else device or "machine not recorded"
    minutes = f"{sum(run.get('seconds', 0) for run in kept.runs) / 60:.0f} minutes of run time ({device})"
    known = [str(commit) for commit in (commits if isinstance(commits, list) else [commits]) if commit]
    code = f"commit{'s' if len(known) > 1 else ''} {', '.join(known) or 'not recorded'}"
    return f"{len(kept.runs)} run{'s' if len(kept.runs) > 1 else ''}, {minutes}, {code}"


def seeds_words(kept: KeptSweep) -> str:
    """Says how many seeds the arms have: "1 seed", "5 seeds", or "5 to 9 seeds" where they differ in it."""
    counts = Counter(describe_arm(run["arm"]) for run in kept.runs).values()
    fewest, most = min(counts), max(counts)
    if fewest < most:
        return f"{fewest} to {most} seeds"
    return f"{most} seed{'s' if most > 1 else ''}"


def scale_of(kept: KeptSweep) -> str:
    """Returns the scale of the runs; results kept before that was noted are of the small one."""
    found = kept.about.get("scale", "small")
    return " and ".join(map(str, found)) if isinstance(found, list) else str(found)


def commands_words(kept: KeptSweep) -> str:
    """Returns the command that makes the runs; a line for each where there were several."""
    found = kept.about.get("command") or command_of(kept.about["sweep"])
    return found if isinstance(found, str) else "\n".join(found)
