"""Draws curves of a kept sweep: scores and metrics over RL steps, a line an arm.

    python -m analysis curves collapse chain6 policy/entropy --where clip_method.dual_clip=null --out collapse.png

Panels are benchmarks, or metrics among those that analysis/results keeps. Lines are means over seeds, bands reach
from the lowest to the highest seed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.draw.figure import UNDATED, save_one
from analysis.runs.files import RunFolderError
from analysis.sweeps.curves import curves_figure, only_arms
from analysis.sweeps.kept import FOLDER, read_results


def main(argv: Sequence[str]) -> int:
    """Draws one figure; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sweep", help="name of a kept sweep")
    parser.add_argument(
        "panels", nargs="+", metavar="PANEL", help="benchmark or metric, e.g. chain6 optim/grad_norm"
    )
    parser.add_argument("--where", nargs="*", default=[], metavar="KEY=VALUE[,VALUE]", help="only these arms")
    parser.add_argument("--title", help="default: the sweep's name and what is drawn")
    parser.add_argument("--results", type=Path, default=FOLDER, help="default: analysis/results of this checkout")
    parser.add_argument("--out", type=Path, required=True, help="file to write: .png, .svg or .pdf")
    arguments = parser.parse_args(argv)
    if arguments.out.suffix[1:] not in UNDATED:
        parser.error(f"--out {arguments.out}: ends in none of .{', .'.join(UNDATED)}")
    try:
        path = arguments.results / f"{arguments.sweep}.jsonl"
        if not path.exists():
            kept = ", ".join(sorted(p.stem for p in arguments.results.glob("*.jsonl")))
            raise RunFolderError(f"{path}: no such file; kept are {kept or 'none'}")
        kept_sweep = only_arms(read_results(path), arguments.where)
        seeds = len({run["seed"] for run in kept_sweep.runs})
        title = arguments.title or f"{arguments.sweep} (mean and range of {seeds} seeds)"
        save_one(curves_figure(kept_sweep, arguments.panels, title), arguments.out)
    except RunFolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"figure: {arguments.out}")
    return 0
