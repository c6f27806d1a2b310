"""Prints or draws one table or figure of the report, on its own.

    python -m analysis table2 --format latex          # printed, or --out FILE
    python -m analysis figure2 --format pdf           # writes figure2.pdf, or --out FILE
    python -m analysis stability_map --narrow         # a column's width

table1 to table6 are ours in the paper's layout, paper_table1 to paper_table6 the paper's own; figure1 is ours,
figure2 to figure5 have ours above the paper's, paper_figure1 to paper_figure5 are its own. Each sweep has
SWEEP_scores, SWEEP_differences, _arms, _cost and, where its runs allow, _curves, _mechanism, _map.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from analysis.claims.judge import claims_json, claims_table, judge_claims, sweeps_at_hand
from analysis.draw.figure import UNDATED, draw_blocks, save_one
from analysis.draw.table import FORMATS, Table
from analysis.paper.figures import PAPER_FIGURES
from analysis.paper.tables import PAPER_TABLES
from analysis.report.report import figure2_blocks, summarise
from analysis.report.sections import tables_of
from analysis.runs.comparable import comparable_sets
from analysis.runs.figures import clipping_figure
from analysis.runs.files import RunFolderError
from analysis.runs.frames import RunFrames
from analysis.runs.load import add_source_arguments, load_source
from analysis.runs.tables import arm_differences_table, final_scores_table
from analysis.statistics import NotComparableError
from analysis.sweeps.figures import figures_of

TABLE_FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}
DEFAULTS = {"table": "markdown", "figure": "png"}


@dataclass(frozen=True)
class Items:
    """Holds what can be asked for, by name. A figure takes whether it is narrow; both are made when called."""

    tables: dict[str, Callable[[], Table]]
    figures: dict[str, Callable[[bool], Figure]]


def items_of(frames: RunFrames) -> Items:
    """Returns the items that these runs and the kept results allow. Raises NotComparableError."""
    sweeps = sweeps_at_hand(frames)
    tables: dict[str, Callable[[], Table]] = {f"paper_{name}": make for name, make in PAPER_TABLES.items()}
    tables["claims"] = lambda: claims_table(claims_json(judge_claims(sweeps)))
    drawn: dict[str, Callable[[bool], Figure]] = {}
    for name, draw in PAPER_FIGURES.items():
        drawn |= {name: draw, f"paper_{name}": draw}
    for name, (kept, _) in sweeps.items():
        tables |= tables_of(kept)
        own = figures_of(kept)
        drawn |= own
        if name in drawn and f"{name}_curves" in own:
            drawn[name] = own[f"{name}_curves"]
    if sets := comparable_sets(frames):
        results = summarise(frames, sets[0])
        tables["final_scores"] = lambda: final_scores_table(results.final)
        tables["differences"] = lambda: arm_differences_table(results.gaps)
        drawn["figure2"] = partial(draw_blocks, figure2_blocks(sets, results))
        drawn["clipping"] = partial(clipping_figure, results.clipping_curves)
    return Items(tables, drawn)


def main(argv: Sequence[str]) -> int:
    """Prints or writes one item; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", metavar="NAME", help="for instance table2, figure2, figure3, stability_map, claims"
    )
    parser.add_argument("--format", choices=[*TABLE_FORMATS, *UNDATED], help="markdown; png for figures")
    parser.add_argument("--out", type=Path, metavar="FILE", help="tables are printed otherwise")
    parser.add_argument("--narrow", action="store_true", help="a figure of one column's width")
    add_source_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        items = items_of(load_source(parser, arguments))
        if arguments.name in items.tables:
            text = FORMATS[table_format(arguments)](items.tables[arguments.name]())
            if arguments.out is None:
                print(text)
                return 0
            arguments.out.write_text(text, encoding="utf-8")
        elif arguments.name in items.figures:
            arguments.out = arguments.out or Path(f"{arguments.name}.{figure_format(arguments)}")
            save_one(items.figures[arguments.name](arguments.narrow), arguments.out, figure_format(arguments))
        else:
            raise RunFolderError(unknown(arguments.name, items))
    except (RunFolderError, NotComparableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {arguments.out}")
    return 0


def table_format(arguments: argparse.Namespace) -> str:
    """Returns the key of FORMATS that was asked for. Raises RunFolderError for a figure's format."""
    asked = arguments.format or DEFAULTS["table"]
    if asked not in TABLE_FORMATS:
        raise RunFolderError(f"--format {asked}: {arguments.name} is a table; one of {', '.join(TABLE_FORMATS)}")
    return TABLE_FORMATS[asked]


def figure_format(arguments: argparse.Namespace) -> str:
    """Returns the format that was asked for, else that of --out.

    Raises RunFolderError for one that no figure has.
    """
    by_name = arguments.out.suffix[1:] if arguments.out and arguments.out.suffix else DEFAULTS["figure"]
    asked = str(arguments.format or by_name)
    if asked not in UNDATED:
        raise RunFolderError(f"format {asked}: {arguments.name} is a figure; one of {', '.join(UNDATED)}")
    return asked


def unknown(name: str, items: Items) -> str:
    """Returns the message about a name that nothing has, with the names that come close."""
    known = sorted({*items.tables, *items.figures})
    close = difflib.get_close_matches(name, known, n=3)
    meant = f"; did you mean {', '.join(close)}?" if close else ""
    return f"{name}: no such table or figure{meant} There are {', '.join(known)}"
