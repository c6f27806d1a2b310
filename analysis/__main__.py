"""Writes tables, figures and a page, or runs one of the commands: `python -m analysis [--runs DIR] [--out DIR]`.

Exit status: 0 when the report was written (also without any runs), 1 for runs that can't be read
or compared, 2 for wrong arguments.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from analysis.commands import item
from analysis.report.report import write_report
from analysis.runs.files import RunFolderError
from analysis.runs.load import DEFAULT_RUNS, add_source_arguments, load_source
from analysis.statistics import NotComparableError
from analysis.sweeps.kept import FOLDER

DEFAULT_OUT = Path("report")
# Each is imported when called: wandb alone takes a second.
COMMANDS = {
    "compare": "analysis.commands.compare",
    "curves": "analysis.commands.curves",
    "keep": "analysis.commands.keep",
    "wandb": "analysis.commands.wandb_push",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the report and prints its path, or hands over to a command; returns the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in COMMANDS:
        return int(import_module(COMMANDS[words[0]]).main(words[1:]))
    if words and not words[0].startswith("-"):
        return item.main(words)
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description="Read finished runs and write tables (Markdown, CSV, LaTeX), figures (PNG, SVG, PDF) and "
        "one page, index.html, that shows our results beside the paper's.",
        epilog="Example: python -m klear_lab.run clip_method=gppo,cispo -m && python -m analysis\n\n"
        "python -m analysis figure2 --format pdf       one figure or table (figure2 --help)\n"
        "python -m analysis compare RUN_OR_SWEEP ...   any runs side by side (compare --help)\n"
        "python -m analysis wandb [SWEEP ...]          tables, figures and a workspace to wandb (wandb --help)\n"
        "python -m analysis curves SWEEP PANEL ...     curves of a kept sweep (curves --help)\n"
        "python -m analysis keep SWEEP ...             keeps a sweep's results with the code (keep --help)",
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
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        default=FOLDER,
        help="kept results, for sweeps that the runs don't have (default: analysis/results of this checkout)",
    )
    arguments = parser.parse_args(words)
    try:
        if not arguments.results.is_dir():
            parser.error(f"--results {arguments.results}: no such folder")
        frames = load_source(parser, arguments)
        source = (
            ["--wandb", arguments.wandb] if arguments.wandb else ["--runs", str(arguments.runs or DEFAULT_RUNS)]
        )
        if arguments.results != FOLDER:
            source += ["--results", str(arguments.results)]
        index = write_report(frames, arguments.out, source, arguments.results)
    except (RunFolderError, NotComparableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"report: {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
