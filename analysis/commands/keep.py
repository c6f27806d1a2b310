"""Keeps what the runs of a sweep found, in a small file that is versioned with the code.

    python -m analysis keep figure4 table2 [--runs DIR]

writes analysis/results/<sweep>.jsonl from the finished runs of each sweep named, and README.md beside them, with
one table of scores and one of paired differences for every file there is. A sweep that grew in batches of seeds
(`python -m klear_lab.settle`) keeps its kept runs that counted as the first look, and its claims stay marked ‡.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from analysis.claims.settled import sweep_to_keep
from analysis.commands.messages import explained_in_a_line
from analysis.commands.source import add_source_arguments, load_source
from analysis.draw.output import folder_for, make_folder, replace_file
from analysis.draw.table import to_markdown
from analysis.runs.damage import without_damaged
from analysis.sweeps.kept import (
    FOLDER,
    KeptSweep,
    caveats,
    commands_words,
    how_made,
    in_plural,
    read_results,
    scale_of,
    world_of,
    write_results,
)
from analysis.sweeps.tables import score_table, swept_differences_table


def write_readme(folder: Path) -> None:
    """Writes README.md: scores and differences of every kept sweep in the folder. Raises OutputError."""
    kept_sweeps = [read_results(path) for path in sorted(folder.glob("*.jsonl"))]
    parts = [
        "# Kept results\n\nWritten by `python -m analysis keep SWEEP ...` from finished runs, never by hand. "
        f"{world_sentence(kept_sweeps)}\n"
    ]
    for kept in kept_sweeps:
        commands = ", ".join(f"`{command}`" for command in commands_words(kept).splitlines())
        left_out = "".join(f"\n{line}\n" for line in caveats(kept))
        tables = [to_markdown(score_table(kept)), to_markdown(swept_differences_table(kept))]
        parts.append("\n".join([f"## {kept.about['sweep']}\n{commands}, {how_made(kept)}\n{left_out}", *tables]))
    replace_file(folder / "README.md", "\n".join(parts).encode())


def world_sentence(kept_sweeps: Sequence[KeptSweep]) -> str:
    """Says which world and scale the results are about; by sweep where they are about several."""
    sweeps_of: dict[str, list[str]] = {}
    for kept in kept_sweeps:
        where = f"{in_plural(world_of(kept))} at `scale={scale_of(kept)}`"
        sweeps_of.setdefault(where, []).append(kept.about["sweep"])
    if len(sweeps_of) == 1:
        return f"All of it is about\n{next(iter(sweeps_of))}, not about the paper's models."
    return "It is about\n" + "".join(f"\n- {where}: {', '.join(names)}" for where, names in sweeps_of.items())


@explained_in_a_line
def main(argv: Sequence[str]) -> int:
    """Keeps the sweeps named; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis keep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="names of sweeps, as in sweeps/")
    add_source_arguments(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=FOLDER,
        help="a folder (default: analysis/results of this checkout)",
    )
    arguments = parser.parse_args(argv)
    make_folder(folder_for(arguments.out, "what is kept"))
    frames = load_source(parser, arguments)
    for sweep in arguments.sweeps:
        kept = without_damaged(frames, partial(sweep_to_keep, sweep=sweep, results=arguments.out))
        print(f"kept: {write_results(kept, arguments.out)}")
    write_readme(arguments.out)
    print(f"tables: {arguments.out / 'README.md'}")
    return 0
