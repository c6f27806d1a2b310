"""Any runs side by side, without writing code: curves, final scores, paired differences, unequal settings.

    python -m analysis compare figure2                          # the arms of a sweep
    python -m analysis compare 0606bb5f4b1f 71b3ad03cb97        # runs by their id, or its beginning
    python -m analysis compare figure2 stability --metrics policy/entropy optim/grad_norm

Runs whose configs differ in nothing but the seed are one arm, named by the keys in which the arms differ.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.arms import as_words
from analysis.draw.figure import Block, Panel, draw_blocks, in_rows, save
from analysis.draw.table import DASH, Table, to_latex, to_markdown
from analysis.runs.comparable import SFT_SEED, compared_part, flattened
from analysis.runs.files import RunFolderError
from analysis.runs.frames import RunFrames
from analysis.runs.load import add_source_arguments, load_source
from analysis.runs.tables import differences, differences_table, final_scores, final_scores_table
from analysis.statistics import NotComparableError, last_common_step, metric_curves, score_curves

METRICS = ("reward/mean", "policy/entropy", "optim/grad_norm")
FOLLOWING_SEEDS = (SFT_SEED, "data.seed")


@dataclass(frozen=True)
class Comparison:
    """runs: run_id, arm, method, seed. differing: key -> its value in each arm. left_out: runs, and why."""

    runs: pd.DataFrame
    differing: dict[str, dict[str, str]]
    left_out: list[str]


def choose_runs(frames: RunFrames, names: Sequence[str]) -> list[str]:
    """The ids of the runs named: by id, its beginning, or a sweep. Raises `RunFolderError` for an unknown name."""
    chosen: dict[str, None] = {}
    for name in names:
        found = [i for i, record in frames.records.items() if name in record.get("sweeps", {})]
        found = found or [i for i in frames.records if i.startswith(name)]
        if not found:
            sweeps = sorted({sweep for record in frames.records.values() for sweep in record.get("sweeps", {})})
            raise RunFolderError(
                f"{name}: neither a run nor a sweep; sweeps are {', '.join(sweeps) or 'none'}, runs "
                f"{', '.join(sorted(frames.records)[:8]) or 'none'}{' ...' if len(frames.records) > 8 else ''}"
            )
        chosen |= dict.fromkeys(found)
    return [*chosen]


def compare(frames: RunFrames, run_ids: Sequence[str]) -> Comparison:
    """Groups runs into arms. Raises `RunFolderError` where fewer than one is finished."""
    status = {run_id: frames.records[run_id]["status"] for run_id in run_ids}
    left_out = [f"{run_id}: {word}" for run_id, word in status.items() if word != "finished"]
    settings = own_settings(frames, [run_id for run_id, word in status.items() if word == "finished"])
    if not settings:
        raise RunFolderError(f"none of the runs is finished: {', '.join(left_out)}")
    keys = sorted({key for flat in settings.values() for key in flat})
    differing = [key for key in keys if len({as_words(flat.get(key)) for flat in settings.values()}) > 1]
    rows, seen = [], set()
    for run_id, flat in settings.items():
        seed, method = frames.records[run_id]["seed"], frames.configs[run_id]["clip_method"]["name"]
        arm = describe({key: flat.get(key) for key in differing}) or method
        if (arm, seed) in seen:
            left_out.append(f"{run_id}: the same settings and seed as a run before it")
            continue
        seen.add((arm, seed))
        rows.append({"run_id": run_id, "arm": arm, "method": method, "seed": seed})
    runs = pd.DataFrame(rows)
    first = runs.drop_duplicates("arm").set_index("arm")["run_id"]
    values = {key: {str(arm): as_words(settings[i].get(key)) for arm, i in first.items()} for key in differing}
    return Comparison(runs, values, left_out)


def own_settings(frames: RunFrames, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What makes each run's arm: its config without paths and `seed`.

    The seeds of SFT and data are no setting where they follow `seed`: a value that only one seed has, its own.
    """
    flat = {}
    for run_id in run_ids:
        config = frames.configs[run_id]
        flat[run_id] = flattened({**compared_part(config), "clip_method": config["clip_method"]})
    seeds_of: dict[tuple[str, Any], set[Any]] = {}
    for run_id, settings in flat.items():
        for key in FOLLOWING_SEEDS:
            seeds_of.setdefault((key, settings.get(key)), set()).add(frames.records[run_id]["seed"])

    def follows(run_id: str, key: str, value: Any) -> bool:
        return key in FOLLOWING_SEEDS and seeds_of[key, value] == {frames.records[run_id]["seed"]} == {value}

    return {i: {k: v for k, v in settings.items() if not follows(i, k, v)} for i, settings in flat.items()}


def describe(differing: Mapping[str, Any]) -> str:
    """An arm in words: the clip method by its name alone, other keys with theirs."""
    words = []
    for key, value in differing.items():
        name = key.rpartition(".")[2]
        words.append(as_words(value) if name == "name" else f"{name}={as_words(value)}")
    return ", ".join(words)


def settings_table(comparison: Comparison) -> Table:
    """The keys in which the arms differ, one row each."""
    arms = [*dict.fromkeys(comparison.runs["arm"])]
    rows = [[key, *(values.get(arm, DASH) for arm in arms)] for key, values in comparison.differing.items()]
    caption = "Settings in which the arms differ; in all others they are the same."
    return Table("settings", caption, [("", "Key"), *(("", arm) for arm in arms)], rows)


def write_comparison(frames: RunFrames, names: Sequence[str], metrics: Sequence[str], out: Path) -> list[Table]:
    """Writes curves.* and the tables into `out`; returns the tables.

    Raises `RunFolderError` and `NotComparableError` before anything is written.
    """
    comparison = compare(frames, choose_runs(frames, names))
    runs = comparison.runs
    own = frames.scores[frames.scores["run_id"].isin(runs["run_id"])]
    last = last_common_step(own)
    curves = pd.concat([score_curves(own, runs), metric_curves(frames.metrics, runs, metrics)])
    panels = [*sorted(own["benchmark"].unique()), *(name for name in metrics if name in {*curves["panel"]})]
    gaps = differences(own, runs, last)
    tables = [
        settings_table(comparison),
        final_scores_table(final_scores(own, runs, last)),
        differences_table(gaps),
    ]
    out.mkdir(parents=True, exist_ok=True)
    rows = in_rows(panels)
    title = f"{' and '.join(names)} (mean and range over seeds)"
    blocks = [Block(title if i == 0 else "", [Panel(p, p) for p in row], curves) for i, row in enumerate(rows)]
    save(draw_blocks(blocks, narrow=False), out / "curves")
    for table in tables:
        (out / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
        (out / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    for line in comparison.left_out:
        print(f"left out: {line}", file=sys.stderr)
    return tables


def main(argv: Sequence[str]) -> int:
    """Prints the tables and where the files are; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="RUN_OR_SWEEP")
    add_source_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("comparison"), help="default: comparison")
    parser.add_argument("--metrics", nargs="*", default=list(METRICS), help=f"default: {' '.join(METRICS)}")
    arguments = parser.parse_args(argv)
    try:
        tables = write_comparison(
            load_source(parser, arguments), arguments.names, arguments.metrics, arguments.out
        )
    except (RunFolderError, NotComparableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for table in tables:
        print(to_markdown(table))
    print(f"figure and tables: {arguments.out}")
    return 0
