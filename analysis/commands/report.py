"""Writes the report about some runs: the command without a name, `python -m analysis`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from analysis.commands.messages import explained_in_a_line
from analysis.commands.source import (
    DEFAULT_RUNS,
    add_results_argument,
    add_source_arguments,
    load_source,
    results_of,
)

DEFAULT_OUT = Path("report")
EPILOG = """Example: python -m klear_lab.run clip_method=gppo,cispo -m && python -m analysis

python -m analysis figure2 --format pdf       one figure or table (figure2 --help)
python -m analysis compare RUN_OR_SWEEP ...   any runs side by side (compare --help)
python -m analysis wandb [SWEEP_OR_RUN ...]   tables, figures and a workspace to wandb (wandb --help)
python -m analysis curves SWEEP PANEL ...     curves of a kept sweep (curves --help)
python -m analysis next                       which claim an hour of runs would settle best
python -m klear_lab.settle C7                 adds seeds until a claim is settled (settle --help)
python -m analysis keep SWEEP ...             keeps a sweep's results with the code (keep --help)

--out has one meaning everywhere: a name that ends in .png, .svg, .pdf, .md, .tex or .csv is a file; anything
else, or a folder that is there, is a folder, into which NAME.FORMAT is written. A report is always a folder. It
replaces an earlier one when it is whole; damaged runs are named, and left out of all numbers."""


@explained_in_a_line
def main(argv: Sequence[str]) -> int:
    """Writes the report and prints its path; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Read finished runs and write tables (Markdown, CSV, LaTeX), figures (PNG, SVG, PDF) and "
        "one page, index.html, that shows our results beside the paper's.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=DEFAULT_OUT,
        help="folder to write the report into (default: report)",
    )
    add_results_argument(parser)
    arguments = parser.parse_args(argv)
    results = results_of(parser, arguments)
    from analysis.report.report import write_report  # not above: --help needn't wait for all that draws

    frames = load_source(parser, arguments)
    source = ["--wandb", arguments.wandb] if arguments.wandb else ["--runs", str(arguments.runs or DEFAULT_RUNS)]
    if arguments.results:
        source += ["--results", str(arguments.results)]
    print(f"report: {write_report(frames, arguments.out, source, results)}")
    return 0
