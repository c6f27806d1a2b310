"""The arguments that several commands have: where runs and kept results come from, and how many of something."""

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
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


def add_results_argument(parser: ArgumentParser) -> None:
    """Adds the argument that says where kept results are."""
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="kept results, for sweeps that the runs don't have (default: analysis/results of this checkout)",
    )


def results_of(parser: ArgumentParser, arguments: Namespace) -> Path:
    """Returns the folder of kept results. One given by hand that doesn't exist ends the command."""
    from analysis.sweeps.kept import FOLDER  # not above: --help needn't wait for pandas

    if arguments.results is None:
        return FOLDER
    if not arguments.results.is_dir():
        parser.error(f"--results {arguments.results}: no such folder")
    return Path(arguments.results)


def add_jobs_argument(parser: ArgumentParser) -> None:
    """Adds the argument that says how many runs are made at a time."""
    parser.add_argument(
        "--jobs", type=count, default=os.cpu_count() or 1, help="runs at a time (default: all cores)"
    )


def count(word: str) -> int:
    """Returns a whole number above 0, for argparse."""
    if not word.isdecimal() or int(word) < 1:
        raise ArgumentTypeError(f"{word}: must be a whole number above 0")
    return int(word)


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
