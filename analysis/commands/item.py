"""Prints or draws one table or figure of the report, on its own.

    python -m analysis table2 --format latex          # printed, without --out
    python -m analysis figure2 --format pdf           # writes figure2.pdf
    python -m analysis figure2 --out paper/fig.pdf    # a file, since its ending is a known one
    python -m analysis figure2 --out paper            # a folder: writes paper/figure2.png
    python -m analysis stability_map --narrow         # a column's width

table1 to table6, ce_gppo_methods and dapo are ours in the papers' layout, paper_table1, paper_dapo and so on
the papers' own; figure1 is ours, figure2 to figure5 have ours above the paper's, paper_figure1 to paper_figure5
are its own; forest shows all claims, settled_arms the pairs of arms that you settled. Each sweep has
SWEEP_scores, SWEEP_differences, _arms, _cost and, where its runs allow, _curves, _mechanism, _map, _parallel and
_choice, which is a table and with --format png a figure.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from analysis.claims.judge import claims_json, claims_table, judge_claims, sweeps_at_hand
from analysis.claims.second import second_table
from analysis.commands.messages import explained_in_a_line, note_caveats
from analysis.commands.source import add_results_argument, add_source_arguments, load_source, results_of
from analysis.draw.figure import UNDATED, as_bytes, draw_blocks
from analysis.draw.output import check_out, file_for, format_for, out_help, replace_file
from analysis.draw.table import FORMATS, Table
from analysis.errors import RunFolderError
from analysis.paper.figures import PAPER_FIGURES
from analysis.paper.tables import PAPER_TABLES
from analysis.report.forest import forest_figure
from analysis.report.report import figure2_blocks, summarise
from analysis.report.sections import tables_of
from analysis.runs.choose import nearest
from analysis.runs.comparable import comparable_sets
from analysis.runs.damage import without_damaged
from analysis.runs.figures import clipping_figure, clipping_metrics
from analysis.runs.frames import RunFrames
from analysis.runs.tables import arm_differences_table, final_scores_table
from analysis.settle.pairs import pairs_at_hand, pairs_table
from analysis.statistics import metric_curves
from analysis.sweeps.figures import figures_of
from analysis.sweeps.kept import FOLDER, named_caveats

OF_CLAIMS = ("claims", "claims_second", "forest")  # made of all sweeps
TABLE_FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}


@dataclass(frozen=True)
class Items:
    """Holds what can be asked for, by name. A figure takes whether it is narrow; both are made when called.

    caveats: of items that are made of sweeps, what a reader must know of their runs.
    """

    tables: dict[str, Callable[[], Table]]
    figures: dict[str, Callable[[bool], Figure]]
    caveats: dict[str, list[str]]


def items_of(frames: RunFrames, results: Path = FOLDER) -> Items:
    """Returns the items that runs and kept results allow. Raises DamagedRunsError."""
    sweeps = sweeps_at_hand(frames, results)
    tables: dict[str, Callable[[], Table]] = {f"paper_{name}": make for name, make in PAPER_TABLES.items()}
    tables["claims"] = lambda: claims_table(claims_json(judge_claims(sweeps)))
    tables["claims_second"] = lambda: second_table(claims_json(judge_claims(sweeps)))
    if pairs := pairs_at_hand(frames):
        tables["settled_arms"] = partial(pairs_table, pairs)
    drawn: dict[str, Callable[[bool], Figure]] = {
        "forest": lambda narrow: forest_figure(claims_json(judge_claims(sweeps)), narrow)
    }
    for name, draw in PAPER_FIGURES.items():
        drawn |= {name: draw, f"paper_{name}": draw}
    known = dict.fromkeys(OF_CLAIMS, named_caveats(kept for kept, _ in sweeps.values()))
    for name, (kept, _) in sweeps.items():
        made, own = tables_of(kept), figures_of(kept)
        known |= dict.fromkeys((name, *made, *own), named_caveats([kept]))
        tables |= made
        drawn |= own
        if name in drawn and f"{name}_curves" in own:
            drawn[name] = own[f"{name}_curves"]
    if sets := comparable_sets(frames):
        runs = sets[0].runs
        tables["final_scores"] = lambda: final_scores_table(summarise(frames, sets[0]).final)
        tables["differences"] = lambda: arm_differences_table(summarise(frames, sets[0]).gaps)
        drawn["figure2"] = lambda narrow: draw_blocks(figure2_blocks(sets, summarise(frames, sets[0])), narrow)
        drawn["clipping"] = lambda narrow: clipping_figure(
            metric_curves(frames.metrics, runs, clipping_metrics()), narrow
        )
    return Items(tables, drawn, known)


@explained_in_a_line
def main(argv: Sequence[str]) -> int:
    """Prints or writes one item; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", metavar="NAME", help="for instance table2, figure2, figure3, stability_map, claims"
    )
    parser.add_argument("--format", choices=[*TABLE_FORMATS, *UNDATED], help="markdown; png for figures")
    words = out_help([*TABLE_FORMATS.values(), *UNDATED], "NAME.FORMAT")
    parser.add_argument("--out", type=Path, metavar="PATH", help=f"{words}; without it tables are printed")
    parser.add_argument("--narrow", action="store_true", help="a figure of one column's width")
    add_results_argument(parser)
    add_source_arguments(parser)
    arguments = parser.parse_args(argv)
    name, out = arguments.name, arguments.out
    if out is not None:
        check_out(out)  # before what takes seconds
    results = results_of(parser, arguments)
    items = without_damaged(load_source(parser, arguments), partial(items_of, results=results))
    if name in items.tables and not (name in items.figures and asks_for_figure(arguments.format, out)):
        ending = format_for(out, arguments.format, TABLE_FORMATS, "markdown", f"{name} is a table")
        text = FORMATS[ending](items.tables[name]())
        if out is None:
            note_caveats(items.caveats.get(name, ()))
            print(text)
            return 0
        path, content = file_for(out, name, ending), text.encode()
    elif name in items.figures:
        ending = format_for(out, arguments.format, {form: form for form in UNDATED}, "png", f"{name} is a figure")
        path = file_for(out, name, ending)  # before the drawing, which takes seconds
        content = as_bytes(items.figures[name](arguments.narrow), ending)
    else:
        raise RunFolderError(unknown(name, items))
    replace_file(path, content)
    note_caveats(items.caveats.get(name, ()))
    print(f"written: {path}")
    return 0


def asks_for_figure(asked: str | None, out: Path | None) -> bool:
    """Tells whether a format, or else the ending of a file's name, is one of figures."""
    return (asked or ("" if out is None else out.suffix[1:].lower())) in UNDATED


def unknown(name: str, items: Items) -> str:
    """Returns the message about a name that nothing has, with the names that come close."""
    known = sorted({*items.tables, *items.figures})
    near = nearest(name, known) or "."
    return f"{name}: no such table or figure{near} There are {', '.join(known)}"
