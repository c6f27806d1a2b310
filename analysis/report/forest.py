"""Makes the forest plot of the papers' claims from the numbers of the claims' table (`judge.claims_json`).

Claims stand by paper and kind. Effects on scores are shares and have one scale in all papers; other effects have
units of their own, and each row its own scale. A new kind is an entry in KINDS.
"""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any

from matplotlib.figure import Figure

from analysis.claims.claims import CLAIMS
from analysis.claims.judge import IN_BATCHES
from analysis.claims.multiple_testing import CONTRADICTED, EQUAL, INCONCLUSIVE, NOT_RUN, SUPPORTED
from analysis.claims.second import estimate_cell
from analysis.draw.cells import one_seed_note
from analysis.draw.forest import GREY, ForestGroup, ForestRow, Scale, draw_forest
from analysis.draw.svg import inline_svg
from analysis.paper.papers import paper_of

Entry = Mapping[str, Any]

# A kind and the words by which a claim's `measured` is known to be of it; the first that fits counts.
KINDS = {"Scores": "avg@n", "Entropy": "nats", "Training": ""}
MARKS = {
    SUPPORTED: {"color": "#009E73", "marker": "o"},
    CONTRADICTED: {"color": "#D55E00", "marker": "X"},
    EQUAL: {"color": "#0072B2", "marker": "s"},
    INCONCLUSIVE: {"color": GREY, "marker": "s", "filled": "no"},
}
SCORES = Scale(reach=1.0, linear=0.02)  # a difference of two shares can't be larger than 1
MARGINS = {claim.id: claim.margin for claim in CLAIMS}


def kind_of(entry: Entry) -> str:
    """Returns the kind of a claim."""
    return next(kind for kind, words in KINDS.items() if words in entry["measured"])


def forest_groups(entries: Sequence[Entry]) -> list[ForestGroup]:
    """Returns the groups of the plot, in the order of papers and kinds, with a row for each claim."""
    rows = {entry["id"]: forest_row(entry) for entry in entries}
    kinds = [*KINDS]
    places = {entry["id"]: n for n, entry in enumerate(entries)}
    papers = [*dict.fromkeys(paper_of(entry["id"]).name for entry in entries)]

    def group_of(entry: Entry) -> tuple[int, int]:
        return papers.index(paper_of(entry["id"]).name), kinds.index(kind_of(entry))

    ordered = sorted(entries, key=lambda entry: (*group_of(entry), places[entry["id"]]))
    groups = []
    for (paper, kind), own in groupby(ordered, key=group_of):
        shared = kinds[kind] == "Scores"
        words = "difference of avg@n" if shared else "each row on its own scale"
        title = f"{papers[paper]}: {kinds[kind].lower()} ({words})"
        groups.append(ForestGroup(title, [rows[entry["id"]] for entry in own], SCORES if shared else None))
    return groups


def forest_row(entry: Entry) -> ForestRow:
    """Returns a claim's row; one that wasn't run has the paper's number alone."""
    number = estimate_cell(entry) if entry["estimate"] is not None else NOT_RUN
    number += IN_BATCHES if entry["in_batches"] else ""
    if entry["seeds"] == 1:
        number += ", 1 seed"
    return ForestRow(
        name=entry["id"],
        words=entry["statement"],
        number=number,
        mark=entry["verdict"] if entry["verdict"] in MARKS else INCONCLUSIVE,
        estimate=entry["estimate"],
        interval=tuple(entry["interval"]) if entry["interval"] else None,
        compared=published_effects(entry),
        margin=MARGINS.get(entry["id"]),
    )


def published_effects(entry: Entry) -> tuple[float, ...]:
    """Returns the paper's own effects in the unit of ours; none where it gives none."""
    scale = 100.0 if kind_of(entry) == "Scores" else 1.0  # papers give scores in per cent
    return tuple(value / scale for value in entry["published"].values())


def forest_figure(entries: Sequence[Entry], narrow: bool = False) -> Figure:
    """Draws all claims."""
    return draw_forest(forest_groups(entries), MARKS, narrow)


def forest_svg(entries: Sequence[Entry], form: str) -> str:
    """Returns the plot as an SVG element for each group, so that print breaks pages between groups.

    form: wide or narrow. Each says how its claims ended, for whoever can't see it.
    """
    verdicts = {entry["id"]: entry["verdict"] for entry in entries}
    parts: list[str] = []
    for group in forest_groups(entries):
        said = ", ".join(f"{row.name} {verdicts[row.name]}" for row in group.rows)
        words = escape(f"Forest plot. {group.title}: {said}. The table below has every number.")
        figure = draw_forest([group], MARKS, form == "narrow", legend=not parts)
        parts.append(f'<div class="part">{inline_svg(figure, f"forest-{form}-{len(parts)}", words)}</div>')
    return "\n".join(parts)


def forest_caption(entries: Sequence[Entry]) -> str:
    """Says what the plot's marks are."""
    words = (
        "Right of zero: as the paper claims. Each mark is our effect, mean over seeds, with its uncorrected 95 % "
        "interval (an arrow: beyond the scale; ‡: of seeds in batches, the interval that holds at every look). "
        "Scores have one scale, stretched around zero. Colour and form are the verdict's, which is corrected for "
        "all claims: an interval beside zero may be grey. Diamonds: the paper's own effect, mean of its "
        "benchmarks or models, dotted from lowest to highest; its scores are another model's in another world, so "
        "only the side of zero compares. Grey band: the margin within which arms count as equal. The numbers are "
        "those of the table below."
    )
    return words + one_seed_note(entry["seeds"] for entry in entries)
