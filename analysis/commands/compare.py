"""Sets any runs side by side, without writing code: curves, final scores, paired differences, unequal settings.

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

import pandas as pd

from analysis.arms import method_name, short_keys
from analysis.commands.messages import explained_in_a_line
from analysis.commands.source import add_source_arguments, load_source
from analysis.draw.figure import Block, Panel, draw_blocks, in_rows, save
from analysis.draw.output import check_folder, folder_for, fresh_folder
from analysis.draw.table import DASH, Table, to_latex, to_markdown
from analysis.errors import RunFolderError
from analysis.runs.choose import choose_runs, nearest
from analysis.runs.confounds import settings
from analysis.runs.frames import RunFrames
from analysis.runs.tables import arm_differences, arm_differences_table, final_scores, final_scores_table
from analysis.statistics import last_common_step, metric_curves, score_curves

DRAWN = ("reward/mean", "policy/entropy", "optim/grad_norm")  # unless --metrics names others
NOT_SET = "null"
FILES = [f"{stem}.{form}" for stem in ("settings", "final_scores", "differences") for form in ("md", "tex")]


@dataclass(frozen=True)
class Comparison:
    """Holds runs in arms, and what the arms differ in.

    runs: run_id, arm, method, seed. differing: key -> its value in each arm. left_out: runs, and why.
    """

    runs: pd.DataFrame
    differing: dict[str, dict[str, str]]
    left_out: list[str]


def compare_runs(frames: RunFrames, run_ids: Sequence[str]) -> Comparison:
    """Groups runs into arms. Raises RunFolderError where none is finished."""
    status = {run_id: frames.records[run_id]["status"] for run_id in run_ids}
    left_out = [f"{run_id}: {word}" for run_id, word in status.items() if word != "finished"]
    own = settings({i: frames.configs[i] for i, word in status.items() if word == "finished"})
    if not own:
        raise RunFolderError(f"none of the runs is finished: {', '.join(left_out)}")
    keys = sorted({key for flat in own.values() for key in flat})
    differing = [key for key in keys if len({flat.get(key, NOT_SET) for flat in own.values()}) > 1]
    rows, seen = [], set()
    for run_id, flat in own.items():
        seed, method = frames.records[run_id]["seed"], method_name(frames.configs[run_id]["clip_method"])
        arm = arm_words({key: flat.get(key, NOT_SET) for key in differing}) or method
        if (arm, seed) in seen:
            left_out.append(f"{run_id}: the same settings and seed as a run before it")
            continue
        seen.add((arm, seed))
        rows.append({"run_id": run_id, "arm": arm, "method": method, "seed": seed})
    runs = pd.DataFrame(rows)
    first = runs.drop_duplicates("arm").set_index("arm")["run_id"]
    values = {key: {str(arm): own[i].get(key, NOT_SET) for arm, i in first.items()} for key in differing}
    return Comparison(runs, values, left_out)


def arm_words(differing: Mapping[str, str]) -> str:
    """Returns an arm in words: the clip method by its name alone, other keys with theirs."""
    short = short_keys(differing)
    return ", ".join(
        value if key.endswith(".name") else f"{short[key]}={value}" for key, value in differing.items()
    )


def settings_table(comparison: Comparison) -> Table:
    """Lists the keys in which the arms differ, one in each row."""
    arms = [*dict.fromkeys(comparison.runs["arm"])]
    rows = [[key, *(values.get(arm, DASH) for arm in arms)] for key, values in comparison.differing.items()]
    caption = "Settings in which the arms differ; in all others they are the same."
    return Table("settings", caption, [("", "Key"), *(("", arm) for arm in arms)], rows)


def write_comparison(
    frames: RunFrames, names: Sequence[str], metrics: Sequence[str] | None, out: Path
) -> list[Table]:
    """Writes curves.* and the tables into `out`; returns the tables. metrics: None draws DRAWN, where there.

    Raises RunFolderError and NotComparableError before anything is written, and OutputError.
    """
    check_folder(folder_for(out, "a comparison"))
    comparison = compare_runs(frames, choose_runs(frames, names))
    runs = comparison.runs
    own = frames.scores[frames.scores["run_id"].isin(runs["run_id"])]
    metrics = drawn_metrics(frames, runs, metrics)
    last = last_common_step(own) if len(own) else 0
    curves = pd.concat([score_curves(own, runs), metric_curves(frames.metrics, runs, metrics)])
    panels = [*sorted(own["benchmark"].unique()), *(name for name in metrics if name in {*curves["panel"]})]
    if not panels:
        raise RunFolderError(f"{' '.join(names)}: nothing to draw, neither evaluations nor {', '.join(DRAWN)}")
    tables = [settings_table(comparison)]
    if len(own):
        tables += [
            final_scores_table(final_scores(own, runs, last)),
            arm_differences_table(arm_differences(own, runs, last)),
        ]
    rows = in_rows(panels)
    title = f"{' and '.join(names)} (mean and range over seeds)"
    blocks = [Block(title if i == 0 else "", [Panel(p, p) for p in row], curves) for i, row in enumerate(rows)]
    with fresh_folder(out, stale=FILES) as fresh:
        save(draw_blocks(blocks, narrow=False), fresh / "curves")
        for table in tables:
            (fresh / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
            (fresh / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    for line in comparison.left_out:
        print(f"left out: {line}", file=sys.stderr)
    return tables


def drawn_metrics(frames: RunFrames, runs: pd.DataFrame, asked: Sequence[str] | None) -> list[str]:
    """Returns the metrics to draw: those asked for, else those of DRAWN that the runs have.

    Raises RunFolderError for a metric that was asked for and that none of the runs logged in RL.
    """
    lines = frames.metrics[(frames.metrics["stage"] == "rl") & frames.metrics["run_id"].isin(runs["run_id"])]
    known = [
        name for name in lines.columns if name not in ("run_id", "stage", "step") and lines[name].notna().any()
    ]
    if asked is None:
        return [name for name in DRAWN if name in known]
    for name in asked:
        if name not in known:
            raise RunFolderError(
                f"--metrics {name}: not logged by these runs; there are {', '.join(known) or 'none'}"
                f"{nearest(name, known)}"
            )
    return [*dict.fromkeys(asked)]


@explained_in_a_line
def main(argv: Sequence[str]) -> int:
    """Prints the tables and where the files are; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="+", metavar="RUN_OR_SWEEP")
    add_source_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("comparison"),
        help="a folder, also a new one (default: comparison)",
    )
    parser.add_argument("--metrics", nargs="*", help=f"default: those of {' '.join(DRAWN)} that the runs have")
    arguments = parser.parse_args(argv)
    tables = write_comparison(load_source(parser, arguments), arguments.names, arguments.metrics, arguments.out)
    for table in tables:
        print(to_markdown(table))
    print(f"figure and tables: {arguments.out}")
    return 0
