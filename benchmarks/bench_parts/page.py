"""The tables of benchmarks/README.md, from what benchmarks/results.json holds."""

import re
import textwrap
from pathlib import Path

from bench_parts.figures import OURS, Figure, Part, spread

BEGIN, END = "<!-- what `make bench` found -->", "<!-- end of what `make bench` found -->"


def tables(parts: dict[str, Part]) -> str:
    """Returns Markdown for all parts that were measured."""
    return "\n".join(section(name, part) for name, part in parts.items())


def section(name: str, part: Part) -> str:
    """Returns one part's heading, command and table."""
    times = f"{part.repeats} repetitions" if part.repeats > 1 else "measured once"
    told = f"`{part.command}` ({part.date}; {part.machine}; {times})"
    lines = [f"### {part.title}", *textwrap.wrap(told, 119, break_on_hyphens=False), ""]
    lines += ["| | klear_lab | beside it | ratio | goal |", "|---|---|---|---|---|"]
    lines += [row(figure) for figure in part.figures]
    notes = [wrapped for note in part.notes for wrapped in ["", *textwrap.wrap(note, 119)]]
    return "\n".join([*lines, *notes]) + "\n"


def row(figure: Figure) -> str:
    """Returns a figure's row."""
    others = "; ".join(f"{n}: {spread(v, figure.unit)}" for n, v in figure.values.items() if n != OURS)
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    goal = f"{figure.goal:.2f}" if figure.goal is not None else ""
    if figure.at_most is not None:
        goal = f"{figure.at_most:g} {figure.unit}"
    mark = {True: "met: ", False: "not met: ", None: ""}[figure.met]
    return f"| {figure.what} | {spread(figure.values[OURS], figure.unit)} | {others} | {ratio} | {mark}{goal} |"


def write_tables(page: Path, parts: dict[str, Part]) -> None:
    """Puts the tables between their marks in a page."""
    text = page.read_text()
    block = f"{BEGIN}\n{tables(parts)}\n{END}"
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: block, text, flags=re.DOTALL))
