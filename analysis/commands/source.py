"""The arguments that say where runs come from, for every command that reads some."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.runs.frames import RunFrames

DEFAULT_RUNS = Path("runs")


def add_source_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments that say where runs come from, for every command that reads some."""
    parser.add_argument(
        "--runs", type=Path, metavar="DIR", help="folder of the run folders, or one of them (default: runs)"
    )
    parser.add_argument(
        "--wandb", metavar="SOURCE", help="instead of --runs: a wandb entity/project, or a path of .wandb files"
    )


def load_source(parser: ArgumentParser, arguments: Namespace) -> "RunFrames":
    """Loads the runs that the arguments name, and names damaged ones on stderr. Raises RunFolderError."""
    from analysis.runs.choose import no_runs_words  # not above: --help needn't wait for pandas
    from analysis.runs.damage import name_damaged
    from analysis.runs.frames import load_runs
    from analysis.runs.from_wandb import load_wandb

    if arguments.wandb is not None:
        frames = load_wandb(arguments.wandb)
    else:
        # the default folder may not exist before the first run; one given by hand that doesn't is a typing error
        if arguments.runs is not None and not arguments.runs.is_dir():
            parser.error(f"--runs {arguments.runs}: no such folder")
        frames = load_runs(arguments.runs or DEFAULT_RUNS)
    name_damaged(frames.damaged)
    if not frames.records and not frames.damaged:
        print(f"note: {no_runs_words(frames.source)}", file=sys.stderr)
    return frames
