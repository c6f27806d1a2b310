"""Draws curves of a kept sweep: scores and metrics over RL steps, a line an arm.

    python -m analysis curves collapse chain6 policy/entropy --where clip_method.dual_clip=null --out collapse.png

Panels are benchmarks, or metrics among those that analysis/results keeps. Lines are means over seeds, bands reach
from the lowest to the highest seed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.commands.messages import explained_in_a_line
from analysis.commands.source import add_results_argument, results_of
from analysis.draw.figure import UNDATED, as_bytes
from analysis.draw.output import check_out, file_for, format_for, out_help, replace_file
from analysis.errors import OutputError, RunFolderError
from analysis.runs.choose import nearest
from analysis.sweeps.curves import curves_figure, only_arms
from analysis.sweeps.kept import read_results, results_file


@explained_in_a_line
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
    add_results_argument(parser)
    parser.add_argument("--out", type=Path, metavar="PATH", required=True, help=out_help(UNDATED, "SWEEP.FORMAT"))
    parser.add_argument("--format", choices=[*UNDATED], help="default: the ending of --out, else png")
    arguments = parser.parse_args(argv)
    formats = {form: form for form in UNDATED}
    try:
        ending = format_for(arguments.out, arguments.format, formats, "png", "curves are a figure")
        check_out(arguments.out)
    except OutputError as error:
        parser.error(str(error))
    results = results_of(parser, arguments)
    path = results_file(results, arguments.sweep)
    if not path.exists():
        kept = [read_name(file) for file in sorted(results.glob("*.jsonl"))]
        raise RunFolderError(
            f"{path}: no such file; kept are {', '.join(kept) or 'none'}{nearest(arguments.sweep, kept)}"
        )
    kept_sweep = only_arms(read_results(path), arguments.where)
    seeds = len({run["seed"] for run in kept_sweep.runs})
    title = arguments.title or f"{arguments.sweep} (mean and range of {seeds} seed{'s' if seeds > 1 else ''})"
    file = file_for(arguments.out, path.stem, ending)
    replace_file(file, as_bytes(curves_figure(kept_sweep, arguments.panels, title), ending))
    print(f"figure: {file}")
    return 0


def read_name(path: Path) -> str:
    """Returns the name of the sweep that a file of kept results is of."""
    return path.stem.replace("%2F", "/")
