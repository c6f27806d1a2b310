"""Writes a printed table as Markdown, LaTeX (booktabs) and CSV; the page lays out its cells itself.

A Table holds finished strings (analysis/draw/cells.py makes them); nothing is computed or rounded here.
"""

import csv
import io
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

# typographic signs by name, because in code they are easily mistaken for a hyphen
MINUS, DASH, NO_BREAK = "\N{MINUS SIGN}", "\N{EN DASH}", "\N{NO-BREAK SPACE}"

LATEX_CHARACTERS = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    MINUS: "$-$",
    DASH: "--",
    "\N{EM SPACE}": r"\quad ",
    NO_BREAK: "~",
}


@dataclass(frozen=True)
class Table:
    """Holds a printed table.

    name: file stem and LaTeX label. columns: (group, name), group "" where there is none. rows: cells.
    bold, underlined: cells as (row, column). rules: rows with a line above them. headings: row -> words above it,
    which hold for the rows down to the next heading; headed: what these words name.
    """

    name: str
    caption: str
    columns: list[tuple[str, str]]
    rows: list[list[str]]
    bold: Set[tuple[int, int]] = frozenset()
    underlined: Set[tuple[int, int]] = frozenset()
    rules: Set[int] = frozenset()
    headings: Mapping[int, str] = field(default_factory=dict)
    headed: str = ""

    def groups(self) -> list[tuple[str, int]]:
        """Returns each run of columns of one group as (group, columns), for a header that spans them."""
        return [(group, len(list(columns))) for group, columns in groupby(self.columns, key=lambda one: one[0])]

    def flat_names(self) -> list[str]:
        """Returns a name for each column, with its group in front."""
        return [f"{group} {name}".strip() for group, name in self.columns]

    def flat(self) -> tuple[list[str], list[list[str]]]:
        """Returns names and rows for formats without headings, which become a first column there."""
        if not self.headings:
            return self.flat_names(), self.rows
        rows, heading = [], ""
        for number, row in enumerate(self.rows):
            heading = self.headings.get(number, heading)
            rows.append([heading, *row])
        return [self.headed, *self.flat_names()], rows


def to_csv(table: Table) -> str:
    """Returns the cells as CSV under one line of names, without marks."""
    buffer = io.StringIO()
    names, rows = table.flat()
    csv.writer(buffer, lineterminator="\n").writerows([names, *rows])
    return buffer.getvalue()


def write_table(table: Table, out_dir: Path) -> None:
    """Writes a table in its three formats."""
    for form, convert in FORMATS.items():
        (out_dir / f"{table.name}.{form}").write_text(convert(table), encoding="utf-8")


def to_markdown(table: Table) -> str:
    """Returns a pipe table under its caption, pipes in cells escaped. Rules above rows have no form here."""
    rows = []
    for r, row in enumerate(table.rows):
        if r in table.headings:
            rows.append([f"**{table.headings[r]}**", *[""] * (len(row) - 1)])
        rows.append([_marked(table, r, c, cell) for c, cell in enumerate(row)])
    lines = [table.flat_names(), ["---"] * len(table.columns), *rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{table.caption}\n\n{body}\n"


def to_latex(table: Table) -> str:
    r"""Returns a booktabs table; it needs \usepackage{booktabs}. Groups span their columns with a \cmidrule."""
    body = []
    for r, row in enumerate(table.rows):
        body += [r"\midrule"] if r in table.rules or (r in table.headings and r > 0) else []
        if r in table.headings:
            body.append(
                rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\textit{{{latex_text(table.headings[r])}}}}} \\"
            )
        body.append(" & ".join(_latex_cell(table, r, c, cell) for c, cell in enumerate(row)) + r" \\")
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex_text(table.caption)}}}",
            rf"\label{{tab:{table.name}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.columns)}}}",
            r"\toprule",
            *_latex_group_header(table),
            _latex_line([name for _, name in table.columns]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex_text(text: str) -> str:
    """Escapes every character that LaTeX reads as a command."""
    return "".join(LATEX_CHARACTERS.get(character, character) for character in text)


def _marked(table: Table, row: int, column: int, cell: str) -> str:
    if (row, column) in table.bold:
        return f"**{cell}**"
    return f"<u>{cell}</u>" if (row, column) in table.underlined else cell


def _latex_cell(table: Table, row: int, column: int, cell: str) -> str:
    text = latex_text(cell)
    if (row, column) in table.bold:
        return rf"\textbf{{{text}}}"
    return rf"\underline{{{text}}}" if (row, column) in table.underlined else text


def _latex_line(cells: list[str]) -> str:
    return " & ".join(latex_text(cell) for cell in cells) + r" \\"


def _latex_group_header(table: Table) -> list[str]:
    if not any(group for group, _ in table.columns):
        return []
    cells, rules, first = [], [], 1
    for group, width in table.groups():
        cells.append(
            rf"\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}" if group else " & ".join([""] * width)
        )
        if group:
            rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    return [" & ".join(cells) + r" \\", "".join(rules)]


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
