"""Writes the report: every file that `python -m analysis` makes of one folder of runs.

Order: runs -> comparable sets -> statistics -> tables and figures -> index.html. A later table or figure is
computed in `summarise`, written in `write_figures` or `write_tables` and shown in `report.html.j2`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from analysis.claims.judge import claims_json, judge_claims, sweeps_at_hand, write_claims
from analysis.draw.beside import beside
from analysis.draw.drawn_once import drawn_once
from analysis.draw.figure import UNDATED, Block, Panel, as_bytes, draw_blocks, in_rows, save
from analysis.draw.output import check_folder, folder_for, fresh_folder
from analysis.draw.svg import inline_svg
from analysis.draw.table import FORMATS, Table, write_table
from analysis.paper.figures import PAPER_FIGURES, published_block
from analysis.paper.papers import PAPERS
from analysis.paper.tables import PAPER_TABLES
from analysis.report import captions
from analysis.report.explorer import BUDGET, embedded, explorer_data, fitting
from analysis.report.forest import forest_caption, forest_figure, forest_svg
from analysis.report.samples import samples_section
from analysis.report.sections import section_of, sweep_files
from analysis.report.solved import NONE_SOLVED, has_pairs, solved_data
from analysis.runs.comparable import ComparableSet, comparable_sets
from analysis.runs.damage import without_damaged
from analysis.runs.figures import clipping_figure, clipping_metrics
from analysis.runs.frames import RunFrames, world_words
from analysis.runs.tables import arm_differences, arm_differences_table, final_scores, final_scores_table
from analysis.settle.pairs import pairs_at_hand, pairs_table
from analysis.statistics import last_common_step, metric_curves, score_curves
from analysis.sweeps.kept import FOLDER, KeptSweep, command_of
from analysis.sweeps.logged import samples_by_run
from analysis.sweeps.numbered_tables import OUR_TABLES
from analysis.sweeps.spent import spent_of_runs
from klear_lab.metrics import heading

TEMPLATE = "report.html.j2"
INDEX = "index.html"
FORMS = ("wide", "narrow")  # of a figure on the page: for a desktop and a phone
FIGURE_STEMS = ("figure2", "clipping", "forest")
TABLE_STEMS = ("claims", "settled_arms", "final_scores", "differences")
LARGEST_PAGE = 4_900_000  # bytes
GRADIENT_NORM = "optim/grad_norm"
ALTS = {
    "figure2": "Scores on each benchmark and gradient norm over RL steps, one line an arm; the paper's own below.",
    "clipping": "Share of tokens in the clip regions, their gradient, and entropy by region, over RL steps.",
}


@dataclass(frozen=True)
class Results:
    """Holds everything that tables and figures show of one comparable set."""

    score_curves: pd.DataFrame
    norm_curves: pd.DataFrame
    clipping_curves: pd.DataFrame
    final: pd.DataFrame
    gaps: pd.DataFrame


def write_report(frames: RunFrames, out_dir: Path, source: Sequence[str] = (), kept: Path = FOLDER) -> Path:
    """Writes the report about some runs into `out_dir` and returns the path of index.html.

    `source`: the arguments that name the runs, for the page's last command. `kept`: the kept results, for sweeps
    that the runs don't have. Without a finished run it holds the paper's figures and says why there is nothing
    else. Damaged runs are listed. An earlier report is replaced when the new one is whole. Raises
    NotComparableError for evaluations that can't be compared, and OutputError.
    """
    check_folder(folder_for(out_dir, "the report"))
    return without_damaged(frames, lambda own: write_whole(own, out_dir, source, kept))


def write_whole(frames: RunFrames, out_dir: Path, source: Sequence[str], kept: Path) -> Path:
    """Does the work of `write_report`. Raises DamagedRunsError where a run turns out damaged."""
    sets = comparable_sets(frames)
    results = summarise(frames, sets[0]) if sets else None
    explored = explorer_data(sets[0].runs) if sets else {"records": [], "left_out": ""}
    samples = samples_section(sets[0].runs) if sets else None
    with fresh_folder(out_dir, last=INDEX, stale=earlier_files()) as fresh, beside() as start:
        solved = start(solved_data, sets[0].runs, samples_by_run(frames.scores)) if sets else NONE_SOLVED.copy
        figures = start(write_figures, fresh, sets, results)
        sweeps = sweeps_at_hand(frames, kept)
        sections = [start(section_of, *sweeps[name], fresh) for name in sorted(sweeps)]
        entries = claims_json(judge_claims(sweeps))
        plots = [start(forest_svg, entries, form) for form in FORMS]
        saved = start(save_forest, fresh, entries)
        context = page_context(frames, sets, results, [*source, "--out", out_dir.as_posix()])
        context |= {"samples": samples, "forest_caption": forest_caption(entries)}
        context["tables"] = {"claims": write_claims(entries, fresh)}
        context["tables"] |= write_tables(fresh, results) if results else {}
        if pairs := pairs_at_hand(frames):
            context["tables"]["settled_arms"] = table = pairs_table(pairs)
            write_table(table, fresh)
        context["papers"] = write_papers_side(fresh, sweeps)
        context["claims"] = captions.claims_words(entries)
        saved()
        forest = dict(zip(FORMS, [plot() for plot in plots], strict=True))
        context["figures"] = {"forest": forest, **figures()}
        context["sections"] = [section() for section in sections]
        context |= solved_context(solved())
        rest = len(render({**context, **explorer_context([])}).encode())
        shown = fitting(explored, min(BUDGET, LARGEST_PAGE - rest))
        (fresh / INDEX).write_text(render(context | explorer_context(**shown)), encoding="utf-8")
    return out_dir / INDEX


def solved_context(solved: dict[str, Any]) -> dict[str, Any]:
    """Returns what the page's part on prompts that one arm solves alone shows."""
    return {
        "solved_json": embedded({"runs": solved["runs"], "prompts": solved["prompts"]}),
        "solved_pairs": has_pairs(solved),
        "solved_left_out": solved["left_out"],
    }


def explorer_context(records: list[dict[str, Any]], left_out: str = "") -> dict[str, Any]:
    """Returns what the page's token explorer shows."""
    return {
        "explorer_json": embedded({"records": records}),
        "explorer_records": len(records),
        "explorer_left_out": left_out,
    }


def summarise(frames: RunFrames, drawn: ComparableSet) -> Results:
    """Computes the statistics of the drawn runs; those of scores are empty where no benchmark was evaluated.

    Raises NotComparableError where their evaluations can't be compared.
    """
    runs = drawn.runs
    own_scores = frames.scores[frames.scores["run_id"].isin(runs["run_id"])]
    last = last_common_step(own_scores) if len(own_scores) else 0
    return Results(
        score_curves=score_curves(own_scores, runs),
        norm_curves=metric_curves(frames.metrics, runs, [GRADIENT_NORM]),
        clipping_curves=metric_curves(frames.metrics, runs, clipping_metrics()),
        final=final_scores(own_scores, runs, last),
        gaps=arm_differences(own_scores, runs, last),
    )


def figure2_blocks(sets: list[ComparableSet], results: Results | None) -> list[Block]:
    """Returns our block, where there are results, above the paper's."""
    paper = published_block("figure2", captions.PAPER_TITLE)
    if results is None:
        return [paper]
    world, _ = world_words(sets[0].config)
    sizes = results.final.drop_duplicates("benchmark")
    titles = {str(row.benchmark): f"{row.benchmark} (avg@{row.samples})" for row in sizes.itertuples()}
    titles[GRADIENT_NORM] = heading(GRADIENT_NORM)
    curves = pd.concat([results.score_curves, results.norm_curves])
    title = f"Ours ({world}, {captions.seeds_words(sets[0].runs)})"
    own = [
        Block(title if row == 0 else "", [Panel(name, titles[name]) for name in names], curves)
        for row, names in enumerate(in_rows([*titles]))
    ]
    return [*own, paper]


def write_figures(out_dir: Path, sets: list[ComparableSet], results: Results | None) -> dict[str, dict[str, str]]:
    """Saves the figures, and returns the wide and narrow form of each as SVG elements for the page."""
    blocks = figure2_blocks(sets, results)
    forms = {"figure2": (draw_blocks(blocks), draw_blocks(blocks, narrow=True))}
    if results is not None:
        curves = results.clipping_curves
        forms["clipping"] = (clipping_figure(curves), clipping_figure(curves, narrow=True))
    shown = {}
    for stem, (wide, narrow) in forms.items():
        save(wide, out_dir / stem)
        shown[stem] = {
            "wide": inline_svg(wide, f"{stem}-wide", ALTS[stem]),
            "narrow": inline_svg(narrow, f"{stem}-narrow", ALTS[stem]),
        }
    return shown


def save_forest(out_dir: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Saves the forest plot of the claims."""
    save(forest_figure(entries), out_dir / "forest")


def write_tables(out_dir: Path, results: Results) -> dict[str, Table]:
    """Saves the tables as CSV (full numbers), Markdown and LaTeX, and returns them for the page."""
    printed = {
        "final_scores": final_scores_table(results.final),
        "differences": arm_differences_table(results.gaps),
    }
    numbers = {"final_scores": results.final, "differences": results.gaps}
    for stem, table in printed.items():
        write_table(table, out_dir)
        numbers[stem].to_csv(out_dir / f"{stem}.csv", index=False, float_format="%.6f")
    return printed


def write_papers_side(out_dir: Path, sweeps: Mapping[str, tuple[KeptSweep, str]]) -> list[dict[str, Any]]:
    """Writes the papers' tables and figures in their layout, and returns them by paper, also without any runs.

    Beside each table stands ours in the same layout, or the command that makes its runs. The figures are those of
    the first paper.
    """
    for stem, files in paper_figures().items():
        for form in UNDATED:
            (out_dir / f"{stem}.{form}").write_bytes(files[form])
    sides = []
    for number, paper in enumerate(PAPERS):
        tables = []
        for name in paper.tables:
            table = PAPER_TABLES[name]()
            write_table(table, out_dir)
            own = OUR_TABLES[name](sweeps[name][0]) if name in sweeps else None
            tables.append({"paper": table, "ours": own, "command": command_of(name)})
        sides.append({"paper": paper, "tables": tables, "figures": {} if number else paper_figures()})
    return sides


@drawn_once
def paper_figures() -> dict[str, dict[str, Any]]:
    """Draws Klear-Reasoner's figures in every format and for the page; once, since they never change."""
    drawn: dict[str, dict[str, Any]] = {}
    for name, draw in PAPER_FIGURES.items():
        stem, wide, alt = f"paper_{name}", draw(), f"Figure {name[-1]} of the paper"
        drawn[stem] = {form: as_bytes(wide, form) for form in UNDATED}
        drawn[stem]["wide"] = inline_svg(wide, f"{stem}-wide", alt)
        drawn[stem]["narrow"] = inline_svg(draw(narrow=True), f"{stem}-narrow", alt)
    return drawn


def page_context(
    frames: RunFrames, sets: list[ComparableSet], results: Results | None, arguments: list[str]
) -> dict[str, Any]:
    """Returns the words and lists of the page; `write_report` adds figures and tables.

    `arguments`: those of the command that makes this report.
    """
    context: dict[str, Any] = {
        "note": captions.state_note(frames, sets),
        "first_command": captions.FIRST_COMMAND,
        "run_table": None if frames.runs.empty else captions.run_table(frames),
        "counts": captions.status_counts(frames),
        "damaged": frames.damaged,
        "axis_words": captions.AXIS_WORDS,
        "left_out": captions.left_out(sets),
        "drawn": None,
    }
    if results is not None:
        drawn = sets[0]
        context["drawn"] = {
            "world": world_words(drawn.config)[1],
            "seeds": captions.seeds_words(drawn.runs),
            "scored": len(results.final) > 0,
            "figure2_caption": captions.figure2_caption(results.final, drawn.runs, drawn.own_sft),
            "spent": spent_of_runs(frames.metrics, drawn.runs),
            "clipping_caption": captions.clipping_caption(drawn.runs),
            "commands": captions.rerun_commands(frames, drawn, arguments),
            "provenance": captions.provenance(frames, drawn),
        }
    return context


def earlier_files() -> list[str]:
    """Returns the names that any report's files may have, so that no old table stands beside new text."""
    drawn, printed = ([f"paper_{name}" for name in own] for own in (PAPER_FIGURES, PAPER_TABLES))
    names = [f"{stem}.{form}" for stem in (*FIGURE_STEMS, *drawn) for form in UNDATED]
    names += [f"{stem}.{form}" for stem in (*TABLE_STEMS, *printed) for form in FORMATS]
    return [*names, *sweep_files(), "claims.json", INDEX]


def render(context: dict[str, Any], template: str = TEMPLATE) -> str:
    """Renders a page as HTML; every value is escaped, and a name missing from the context is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(context)
