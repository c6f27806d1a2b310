"""Writes the words of the page: captions, notes, the list of runs, and the commands that make the numbers again.

Every function turns frames into plain strings or lists of them for `report.html.j2`; no number is computed
here that a table or figure doesn't show.
"""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.claims.judge import BATCHES, KEPT, RUNS, worlds_said
from analysis.claims.multiple_testing import VERDICTS
from analysis.claims.second import second_table
from analysis.draw.table import DASH, Table
from analysis.runs.comparable import ComparableSet, differing_keys
from analysis.runs.frames import RunFrames
from analysis.runs.tables import ordered_arms

FIRST_COMMAND = "python -m klear_lab.run clip_method=gppo,cispo -m"
PAPER_TITLE = "Paper (Qwen3-8B, one published curve per method)"
AXIS_WORDS = (
    "Along generated tokens and seconds each arm stands at the mean of its runs at the same step; seconds are "
    "those of rollouts, rewards and updates on the runs' machine, without evaluations."
)
STATUS_WORDS = {"running": "unfinished", "finished": "finished", "failed": "failed"}


def state_note(frames: RunFrames, sets: Sequence[ComparableSet]) -> str:
    """Returns what a reader must know first when there is nothing of ours to show; empty when there is."""
    if sets:
        return ""
    if frames.runs.empty and frames.damaged:
        return f"No run can be read: all of them ({len(frames.damaged)}) are damaged and listed below."
    if frames.runs.empty:
        where = f" in {frames.source}" if frames.source else ""
        return f"There are no runs yet{where}. What follows is of the papers and of results kept with the code."
    return f"No run has finished: {status_counts(frames)}. They are listed below with their errors."


def status_counts(frames: RunFrames) -> str:
    """Counts runs by status, for instance "6 finished, 1 failed, 1 unfinished"."""
    counts = frames.runs["status"].value_counts()
    return ", ".join(
        f"{counts[key]} {STATUS_WORDS[key]}" for key in ("finished", "failed", "running") if key in counts
    )


def seeds_words(runs: pd.DataFrame) -> str:
    """Counts the seeds of an arm: "3 seeds", or "2 to 3 seeds" where arms have unequal numbers."""
    counts = runs.groupby("arm")["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    return f"{high} seed{'s' if high > 1 else ''}" if low == high else f"{low} to {high} seeds"


def sample_words(row: Mapping[Any, Any]) -> str:
    """Says how many prompts, where that is known, and samples a benchmark has."""
    prompts = "" if pd.isna(row["prompts"]) else f"{row['prompts']:.0f} prompts, "
    return f"{row['benchmark']}: {prompts}{row['samples']} samples each"


def figure2_caption(final: pd.DataFrame, runs: pd.DataFrame, own_sft: bool) -> str:
    """Says what a marker and a band of Figure 2 is, and how many seeds, prompts and samples stand behind it."""
    sizes = final.drop_duplicates("benchmark") if len(final) else final
    behind = "; ".join(sample_words(row) for row in sizes.to_dict("records")) or "no benchmark was evaluated"
    start = "each seed has its own, which its arms share" if own_sft else "one for all runs"
    return (
        f"Above: our runs, {seeds_words(runs)} per arm ({behind}). Scores are avg@n: the share of correct "
        f"responses, averaged over samples, then prompts. Step 0 is the SFT checkpoint: {start}. A marker is "
        "the mean over seeds at an evaluated step (on long gradient norm lines, markers stand at some only). "
        f"{band_words(runs)} Below: the paper's Figure 2, as published. Gradient norms are before clipping."
    )


def band_words(runs: pd.DataFrame) -> str:
    """Says what the bands are, or why there are none."""
    if runs.groupby("arm")["seed"].nunique().max() < 2:
        return "1 seed: no band."
    return "The band spans the seeds, lowest to highest; 95 % intervals stand in the tables."


def clipping_caption(runs: pd.DataFrame) -> str:
    """Says what the panels of the clipping figure show."""
    return (
        "Low-clip region: r < 1 - eps_low and A < 0. High-clip region: r > 1 + eps_high and A > 0. Share of "
        "gradient: share of the step's total absolute gradient weight |F A| on tokens of both regions (0 "
        "for methods that silence them). The panels of entropy by region have one scale. At a step where no "
        "token of a region was clipped its entropy has no value; the mean is over the seeds that have one. "
        f"{seeds_words(runs)} per arm. {band_words(runs)}"
    )


def claims_words(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Says how many claims ended how, of which worlds and from where, with each sweep's link and command."""
    said = counted(entry["verdict"] for entry in entries)
    if about := [entry["live"] for entry in entries if entry["live"]]:
        where = counted(one["verdict"] or "without such a setting" for one in about)
        said = f"At the default: {said}. Where clipping acts, of {len(about)} claims about clip methods: {where}"
    sources = {
        source: ", ".join(dict.fromkeys(entry["sweep"] for entry in entries if entry["source"] == source))
        for source in (RUNS, KEPT, BATCHES)
    }
    links = {entry["sweep"]: f"#sweep_{entry['sweep']}" for entry in entries if entry["source"] in sources}
    commands: dict[str, list[str]] = {}
    for entry in entries:
        not_run = " (not run)" if entry["verdict"] == "not run" else ""
        commands.setdefault(entry["command"], []).append(entry["id"] + not_run)
    return {
        "said": said,
        "worlds": worlds_said(entries),
        "sources": {k: v for k, v in sources.items() if v},
        "links": links,
        "commands": commands,
        "second": second_table(entries),
    }


def counted(verdicts: Iterable[str]) -> str:
    """Counts verdicts: "2 supported, 1 not run"."""
    counts = Counter(verdicts)
    order = [*VERDICTS, *(verdict for verdict in counts if verdict not in VERDICTS)]
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if counts[verdict])


def run_table(frames: RunFrames) -> Table:
    """Lists every run, whatever its status."""
    rows = []
    for run in frames.runs.sort_values(["status", "method", "arm", "run_id"]).to_dict("records"):
        cached = {True: "cache", False: "trained"}.get(run["sft_from_cache"], DASH)
        status = STATUS_WORDS[run["status"]] + (f": {run['error']}" if run["error"] else "")
        folder = str(run["folder"])
        rows.append(
            [status, run["arm"], str(run["seed"]), run["run_id"], duration(run["seconds"]), cached, folder]
        )
    names = ("Status", "Arm", "Seed", "Run", "Time", "SFT from", "Folder")
    caption = "Time is the sum over stages. An unfinished run goes on when its command is given again."
    return Table("runs", caption, [("", name) for name in names], rows)


def left_out(sets: Sequence[ComparableSet]) -> list[str]:
    """Says of each finished run, or group of runs, that is not in figures and tables, why it isn't."""
    if not sets:
        return []
    lines = [
        f"{run_id}: the same arm, seed and settings as a later run, which was taken" for run_id in sets[0].repeats
    ]
    drawn_ids = {*sets[0].runs["run_id"], *sets[0].repeats}
    for other in sets[1:]:
        runs = other.runs[~other.runs["run_id"].isin(drawn_ids)]
        differing = differing_keys(other.config, sets[0].config)
        reason = "; ".join(f"{key} = {own} (drawn: {drawn})" for key, (own, drawn) in differing.items())
        arms = ", ".join(arm for _, arm in ordered_arms(runs))
        run_ids = ", ".join([*runs["run_id"], *(i for i in other.repeats if i not in drawn_ids)])
        lines.append(f"{arms}, {seeds_words(runs)} ({run_ids}): {reason or 'SFT checkpoints shared otherwise'}")
    return lines


def rerun_commands(frames: RunFrames, drawn: ComparableSet, arguments: Sequence[str]) -> list[str]:
    """Returns the commands that made the drawn runs, as each recorded its own, and the one that makes this report.

    `arguments`: of that last one. Runs of one sweep recorded the same command, which stands here once.
    """
    recorded = (frames.records[run_id].get("command") for run_id in drawn.runs["run_id"])
    commands = dict.fromkeys(shlex.join(command) for command in recorded if command)
    return [*commands, shlex.join(["python", "-m", "analysis", *arguments])]


def provenance(frames: RunFrames, drawn: ComparableSet) -> list[tuple[str, str]]:
    """Names git commit, versions and hardware of the drawn runs, all of them where there are several."""
    records = [frames.records[run_id] for run_id in drawn.runs["run_id"]]
    commits = sorted({record.get("git_commit") or "not recorded" for record in records})
    rows = [
        (
            "git commit" if len(commits) == 1 else "git commits (the runs come from several)",
            ", ".join(commits),
        )
    ]
    for title, key in (("versions", "versions"), ("hardware", "hardware")):
        texts = sorted({", ".join(f"{k} {v}" for k, v in (record.get(key) or {}).items()) for record in records})
        rows.append((title, " | ".join(text for text in texts if text) or DASH))
    return rows


def duration(seconds: float) -> str:
    """Prints seconds in the largest two units, e.g. "1 h 04 min", "2 min 05 s", "41 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
