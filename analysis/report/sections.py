"""Makes the report's sections on sweeps: question, command, caveats, scores, differences, figures, costs of each.

A section is made from a sweep's numbers, whether they come from runs or from the kept results. To add a sweep: a
file in sweeps/ is enough.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analysis.arms import describe_arm
from analysis.claims.judge import KEPT
from analysis.draw.drawn_once import drawn_once
from analysis.draw.figure import UNDATED, save
from analysis.draw.svg import inline_svg
from analysis.draw.table import Table, write_table
from analysis.sweeps.choice import choice_table, is_a_choice
from analysis.sweeps.convergence import convergence_table, has_sft_of_its_own
from analysis.sweeps.curves import arms_of
from analysis.sweeps.figures import caption_lines, drawn_name, figures_of
from analysis.sweeps.kept import SWEEPS, KeptSweep, caveats, commands_words, how_made, world_of
from analysis.sweeps.numbered_tables import OUR_TABLES
from analysis.sweeps.spent import Spent, spent_of_kept
from analysis.sweeps.tables import arm_table, cost_table, score_table, swept_differences_table

SWEEP_TABLES = {
    "scores": score_table,
    "differences": swept_differences_table,
    "arms": arm_table,
    "cost": cost_table,
}
PARTS = (*SWEEP_TABLES, "choice", "convergence", "curves", "mechanism", "map", "parallel")


@dataclass(frozen=True)
class Section:
    """Holds what a sweep's section of the page shows.

    question: from the sweep's file. figures: SVG -> caption. names: an arm in tables -> the same in figures.
    spent: what each arm of the figures had spent by each step.
    """

    sweep: str
    question: str
    command: str
    source: str
    made: str
    world: str
    caveats: list[str]
    tables: list[Table]
    figures: dict[str, str]
    names: dict[str, str]
    spent: Spent


def section_of(kept: KeptSweep, source: str, out_dir: Path) -> Section:
    """Returns the section on one sweep, and writes its files where it has runs at hand."""
    name = kept.about["sweep"]
    if source != KEPT:
        tables = made_tables(kept)
        write_files(kept, tables.values(), out_dir)
        figures = drawn_figures(kept, out_dir)
    else:
        tables, figures = of_kept_results(json.dumps([kept.about, kept.runs]))
    return Section(
        sweep=name,
        question=question_of(name),
        command=commands_words(kept),
        source=source,
        made=how_made(kept),
        world=world_of(kept),
        caveats=caveats(kept),
        tables=[table for stem, table in tables.items() if stem not in OUR_TABLES],
        figures=figures,
        names=figure_names(kept),
        spent=spent_of_kept(kept, [drawn_name(name, arm) for arm in arms_of(kept)]),
    )


@drawn_once
def of_kept_results(content: str) -> tuple[dict[str, Table], dict[str, str]]:
    """Returns tables and figures of kept results, given as JSON; made once, since they never change."""
    kept = KeptSweep(*json.loads(content))
    return made_tables(kept), drawn_figures(kept)


def made_tables(kept: KeptSweep) -> dict[str, Table]:
    """Makes all tables of a sweep."""
    return {stem: make() for stem, make in tables_of(kept).items()}


def drawn_figures(kept: KeptSweep, out_dir: Path | None = None) -> dict[str, str]:
    """Draws the sweep's figures as SVG for the page, with captions; as files too where `out_dir` is given."""
    drawn = {stem: draw(False) for stem, draw in figures_of(kept).items()}
    for stem, figure in drawn.items():
        if out_dir is not None:
            save(figure, out_dir / stem)
    words = caption_lines(drawn)
    return {inline_svg(figure, stem, f"Figure {stem}"): words[stem] for stem, figure in drawn.items()}


def tables_of(kept: KeptSweep) -> dict[str, Callable[[], Table]]:
    """Returns all tables of a sweep by name, made when called; its form of one of the paper's comes last."""
    name = kept.about["sweep"]
    makers: dict[str, Callable[[KeptSweep], Table]] = {f"{name}_{k}": make for k, make in SWEEP_TABLES.items()}
    if is_a_choice(kept):
        makers[f"{name}_choice"] = choice_table
    if has_sft_of_its_own(kept):
        makers[f"{name}_convergence"] = convergence_table
    if name in OUR_TABLES:
        makers[name] = OUR_TABLES[name]
    return {table: partial(make, kept) for table, make in makers.items()}


def figure_names(kept: KeptSweep) -> dict[str, str]:
    """Returns what figures call each arm of the tables."""
    drawn = zip(kept.runs, arms_of(kept), strict=True)
    names = {describe_arm(run["arm"]): drawn_name(kept.about["sweep"], arm) for run, arm in drawn}
    return dict(sorted(names.items()))


def write_files(kept: KeptSweep, tables: Iterable[Table], out_dir: Path) -> None:
    """Writes the tables in every format, and all runs' final scores in full as SWEEP_scores.csv."""
    for table in tables:
        write_table(table, out_dir)
    kept.scores().to_csv(out_dir / f"{kept.about['sweep']}_scores.csv", index=False)


def question_of(sweep: str) -> str:
    """Returns the comment at the head of the sweep's file, without its command; "" for a sweep without a file."""
    path = SWEEPS / f"{sweep}.yaml"
    if not path.exists():
        return ""
    lines = [line[1:].strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return " ".join(line for line in lines if line and not line.startswith(("@package", "python -m")))


def sweep_files() -> list[str]:
    """Returns the names that a report's files about sweeps may have."""
    stems = [f"{path.stem}_{part}" for path in SWEEPS.glob("*.yaml") for part in PARTS]
    return [
        f"{stem}.{form}" for stem in (*stems, *OUR_TABLES, "figure1") for form in ("md", "tex", "csv", *UNDATED)
    ]
