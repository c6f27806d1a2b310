"""Shows what the paper's figures would take, and its recipe on clusters of several sizes."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from klear_lab.plan.cards import GB, Card
from klear_lab.plan.paper_figures import FigureCost, SizeCost
from klear_lab.plan.show import table_of, verdict

HOUR, DAY = 3600, 86400


def show_paper(
    figures: Sequence[FigureCost],
    sizes: Sequence[SizeCost],
    gpus: int,
    card: Card,
    price: float | None,
    console: Console,
) -> None:
    """Prints a table of sizes and one of figures, none of what is empty."""
    if sizes:
        table = table_of(f"The recipe on clusters of {card.name}", console)
        for heading in ("cards", "most GB of each", "", "GPU-hours", "days", *priced(price)):
            table.add_column(heading, justify="right")
        for size in sizes:
            time = [f"{size.seconds / HOUR:,.0f}", f"{size.seconds / DAY / size.gpus:,.1f}"]
            memory = [f"{size.memory / GB:.1f}", verdict(size.memory, card)]
            table.add_row(str(size.gpus), *memory, *time, *cost(size.seconds, price))
        console.print(table)
    if figures:
        table = table_of(f"The paper's figures and tables, with {gpus} {card.name}", console)
        for heading in ("figure", "runs", "each"):
            table.add_column(heading)
        for heading in ("training", "sampling", "GPU-hours", "days", *priced(price)):
            table.add_column(heading, justify="right")
        for figure in figures:
            parts = (figure.training, figure.sampling, figure.seconds)
            time = [*(f"{part / HOUR:,.0f}" for part in parts), f"{figure.seconds / DAY / gpus:,.2f}"]
            table.add_row(figure.name, str(figure.runs), figure.what, *time, *cost(figure.seconds, price))
        total = sum(figure.seconds for figure in figures)
        table.add_row(
            "all", "", "", "", "", f"{total / HOUR:,.0f}", f"{total / DAY / gpus:,.2f}", *cost(total, price)
        )
        console.print(table)


def priced(price: float | None) -> list[str]:
    """Returns the heading of a column of prices, where there is one."""
    return [] if price is None else ["price"]


def cost(seconds: float, price: float | None) -> list[str]:
    """Returns what a card's seconds cost, where a price is known."""
    return [] if price is None else [f"{price * seconds / HOUR:,.0f}"]


def paper_as_json(figures: Sequence[FigureCost], sizes: Sequence[SizeCost]) -> dict[str, Any]:
    """Returns both as JSON types, nothing where there are none."""
    if not figures:
        return {}
    paper = [asdict(figure) | {"gpu_hours": figure.seconds / HOUR} for figure in figures]
    return {"paper": paper, "clusters": [asdict(size) | {"gpu_hours": size.seconds / HOUR} for size in sizes]}
