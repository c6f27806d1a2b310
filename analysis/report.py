"""The report: every file that `python -m analysis` writes, from one folder of runs.

Order: runs -> comparable sets -> statistics -> tables and figures -> index.html. A later table or figure is
computed in `summarise`, written in `write_figures` or `write_tables` and shown in `report.html.j2`.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from analysis import figures, page
from analysis.ablations import remove_files, sections
from analysis.claim_verdicts import claims_json, judge_claims, sweeps_at_hand, write_claims
from analysis.comparable import ComparableSet, comparable_sets
from analysis.explorer import embedded, explorer_data
from analysis.paper import published_figure2
from analysis.paper_figures import FIGURES
from analysis.paper_tables import TABLES
from analysis.runs import RunFrames
from analysis.statistics import last_common_step, metric_curves, score_curves
from analysis.table_formats import Table, to_latex, to_markdown
from analysis.tables import differences, differences_table, final_scores, final_scores_table

TEMPLATE = "report.html.j2"
FIGURE_STEMS = ("figure2", "clipping")
PAPER_FIGURES = tuple(f"paper_{draw.__name__}" for draw in FIGURES)
PAPER_TABLES = tuple(f"paper_{make.__name__}" for make in TABLES)
TABLE_STEMS = ("claims", "final_scores", "differences")
GRADIENT_NORM = "optim/grad_norm"


@dataclass(frozen=True)
class Results:
    """Everything that tables and figures show of one comparable set."""

    score_curves: pd.DataFrame
    norm_curves: pd.DataFrame
    clipping_curves: pd.DataFrame
    final: pd.DataFrame
    gaps: pd.DataFrame


def write_report(frames: RunFrames, out_dir: Path, source: Sequence[str] = ()) -> Path:
    """Write the report about some runs into `out_dir` and return the path of index.html.

    `source`: the arguments that name the runs, for the page's last command. Without a finished run it holds the
    paper's figures and says why there is nothing else. Raises NotComparableError, before anything is written, for
    evaluations that can't be compared.
    """
    sets = comparable_sets(frames)
    results = summarise(frames, sets[0]) if sets else None
    sweeps = sweeps_at_hand(frames)
    entries = claims_json(judge_claims(sweeps))
    out_dir.mkdir(parents=True, exist_ok=True)
    remove_earlier_files(out_dir)
    context = page_context(frames, sets, results, [*source, "--out", out_dir.as_posix()])
    context["figures"] = write_figures(out_dir, sets, results)
    tables = write_tables(out_dir, results) if results else {}
    context["tables"] = {"claims": write_claims(entries, out_dir), **tables}
    context["sections"] = sections(sweeps, out_dir)
    context["paper"] = write_paper_side(out_dir)
    explored = explorer_data(sets[0].runs) if sets else {"records": [], "left_out": ""}
    context |= {
        "explorer_json": embedded(explored),
        "explorer_records": len(explored["records"]),
        "explorer_left_out": explored["left_out"],
    }
    context["claims"] = page.claims_words(entries)
    index = out_dir / "index.html"
    index.write_text(render(context), encoding="utf-8")
    return index


def summarise(frames: RunFrames, drawn: ComparableSet) -> Results:
    """Statistics of the drawn runs. Raises NotComparableError where their evaluations can't be compared."""
    runs = drawn.runs
    own_scores = frames.scores[frames.scores["run_id"].isin(runs["run_id"])]
    last = last_common_step(own_scores)
    return Results(
        score_curves=score_curves(own_scores, runs),
        norm_curves=metric_curves(frames.metrics, runs, [GRADIENT_NORM]),
        clipping_curves=metric_curves(frames.metrics, runs, figures.CLIPPING_METRICS),
        final=final_scores(own_scores, runs, last),
        gaps=differences(own_scores, runs, last),
    )


def figure2_blocks(sets: list[ComparableSet], results: Results | None) -> list[figures.Block]:
    """Our block (where there are results) above the paper's."""
    paper = figures.Block(page.PAPER_TITLE, figures.PAPER_PANELS, published_figure2())
    if results is None:
        return [paper]
    world, _ = page.world_words(sets[0].config)
    sizes = results.final.drop_duplicates("benchmark")
    panels = [
        figures.Panel(str(row.benchmark), f"{row.benchmark} (avg@{row.samples})") for row in sizes.itertuples()
    ]
    panels.append(figures.Panel(GRADIENT_NORM, "Gradient norm"))
    curves = pd.concat([results.score_curves, results.norm_curves])
    return [figures.Block(f"Ours ({world}, {page.seeds_words(sets[0].runs)})", panels, curves), paper]


def write_figures(out_dir: Path, sets: list[ComparableSet], results: Results | None) -> dict[str, dict[str, str]]:
    """Save the figures; return for each the wide and narrow form as data URIs for the page."""
    blocks = figure2_blocks(sets, results)
    forms = {"figure2": (figures.figure2(blocks), figures.figure2(blocks, narrow=True))}
    if results is not None:
        curves = results.clipping_curves
        forms["clipping"] = (figures.clipping(curves), figures.clipping(curves, narrow=True))
    uris = {}
    for stem, (wide, narrow) in forms.items():
        figures.save(wide, out_dir / stem)
        saved = (out_dir / f"{stem}.svg").read_bytes()
        uris[stem] = {"wide": svg_uri(saved), "narrow": svg_uri(figures.as_bytes(narrow, "svg"))}
    return uris


def write_tables(out_dir: Path, results: Results) -> dict[str, Table]:
    """Save the tables as CSV (full numbers), Markdown and LaTeX; return them for the page."""
    printed = {
        "final_scores": final_scores_table(results.final),
        "differences": differences_table(results.gaps),
    }
    numbers = {"final_scores": results.final, "differences": results.gaps}
    for stem, table in printed.items():
        numbers[stem].to_csv(out_dir / f"{stem}.csv", index=False, float_format="%.6f")
        (out_dir / f"{stem}.md").write_text(to_markdown(table), encoding="utf-8")
        (out_dir / f"{stem}.tex").write_text(to_latex(table), encoding="utf-8")
    return printed


def write_paper_side(out_dir: Path) -> dict[str, Any]:
    """The paper's own tables and figures, in its layout, into files and for the page; also without any runs."""
    tables = [make() for make in TABLES]
    for table in tables:
        frame = pd.DataFrame(table.rows, columns=table.flat_names())
        frame.to_csv(out_dir / f"{table.name}.csv", index=False)
        (out_dir / f"{table.name}.md").write_text(to_markdown(table), encoding="utf-8")
        (out_dir / f"{table.name}.tex").write_text(to_latex(table), encoding="utf-8")
    shown = {}
    for stem, files in paper_figures().items():
        for form in figures.UNDATED:
            (out_dir / f"{stem}.{form}").write_bytes(files[form])
        shown[stem] = {"wide": svg_uri(files["svg"]), "narrow": svg_uri(files["narrow"])}
    return {"tables": tables, "figures": shown}


@lru_cache(maxsize=1)
def paper_figures() -> dict[str, dict[str, bytes]]:
    """Each of the paper's figures in every format, and `narrow` as SVG; drawn once, since they never change."""
    drawn = {}
    for stem, draw in zip(PAPER_FIGURES, FIGURES, strict=True):
        wide = draw()
        drawn[stem] = {form: figures.as_bytes(wide, form) for form in figures.UNDATED}
        drawn[stem]["narrow"] = figures.as_bytes(draw(narrow=True), "svg")
    return drawn


def page_context(
    frames: RunFrames, sets: list[ComparableSet], results: Results | None, arguments: list[str]
) -> dict[str, Any]:
    """The words and lists of the page; figures and tables are added by `write_report`.

    `arguments`: those of the command that makes this report.
    """
    context: dict[str, Any] = {
        "note": page.state_note(frames, sets),
        "first_command": page.FIRST_COMMAND,
        "run_table": None if frames.runs.empty else page.run_table(frames),
        "counts": page.status_counts(frames),
        "left_out": page.left_out(sets),
        "drawn": None,
    }
    if results is not None:
        drawn = sets[0]
        context["drawn"] = {
            "world": page.world_words(drawn.config)[1],
            "seeds": page.seeds_words(drawn.runs),
            "figure2_caption": page.figure2_caption(results.final, drawn.runs, drawn.own_sft),
            "clipping_caption": page.clipping_caption(drawn.runs),
            "commands": page.rerun_commands(frames, drawn, arguments),
            "provenance": page.provenance(frames, drawn),
        }
    return context


def remove_earlier_files(out_dir: Path) -> None:
    """Remove an earlier report under the names this one uses, so that no old table stands beside new text."""
    names = [f"{stem}.{form}" for stem in (*FIGURE_STEMS, *PAPER_FIGURES) for form in figures.UNDATED]
    names += [f"{stem}.{form}" for stem in (*TABLE_STEMS, *PAPER_TABLES) for form in ("md", "csv", "tex")]
    remove_files(out_dir)
    for name in [*names, "claims.json", "index.html"]:
        (out_dir / name).unlink(missing_ok=True)


def svg_uri(svg: bytes) -> str:
    """An SVG file as a data URI: sharp at every size, and the page stays one file."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def render(context: dict[str, Any]) -> str:
    """The page as HTML; every value is escaped, and a name missing from the context is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(context)
