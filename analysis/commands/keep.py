"""Keeps what the runs of a sweep found, in a small file that is versioned with the code.

    python -m analysis keep figure4 table2 [--runs DIR]

writes analysis/results/<sweep>.jsonl from the finished runs of each sweep named, and README.md beside them, with
one table of scores and one of paired differences for every file there is.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.draw.table import to_markdown
from analysis.runs.files import RunFolderError
from analysis.runs.load import add_source_arguments, load_source
from analysis.sweeps.kept import FOLDER, caveats, how_made, keep_sweep, read_results, write_results
from analysis.sweeps.tables import score_table, swept_differences_table


def write_readme(folder: Path) -> None:
    """Writes README.md: scores and differences of every kept sweep in the folder."""
    parts = [
        "# Kept results\n\nWritten by `python -m analysis keep SWEEP ...` from finished runs, never by hand. "
        "All of it is about the embedded\nworlds at `scale=small`, not about the paper's models.\n"
    ]
    for path in sorted(folder.glob("*.jsonl")):
        kept = read_results(path)
        made = f"`{kept.about['command']}`, {how_made(kept)}"
        left_out = "".join(f"\n{line}\n" for line in caveats(kept))
        tables = [to_markdown(score_table(kept)), to_markdown(swept_differences_table(kept))]
        parts.append("\n".join([f"## {kept.about['sweep']}\n{made}\n{left_out}", *tables]))
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Keeps the sweeps named; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis keep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweeps", nargs="+", metavar="SWEEP", help="names of sweeps, as in sweeps/")
    add_source_arguments(parser)
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: analysis/results of this checkout")
    arguments = parser.parse_args(argv)
    try:
        frames = load_source(parser, arguments)
        for sweep in arguments.sweeps:
            print(f"kept: {write_results(keep_sweep(frames, sweep), arguments.out)}")
    except RunFolderError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_readme(arguments.out)
    print(f"tables: {arguments.out / 'README.md'}")
    return 0
