"""Shows plans as tables, plain ones where the output isn't a terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from klear_lab.plan.advice import as_overrides
from klear_lab.plan.arm_plan import ArmPlan, hours, still_to_do
from klear_lab.plan.cards import ADAPTER_UTILISATION, GB, UTILISATION, Card
from klear_lab.plan.memory import Assumed
from klear_lab.plan.pace import Pace


def show(
    arms: Sequence[ArmPlan],
    card: Card,
    assumed: Assumed,
    price: float | None,
    pace: Pace | None,
    console: Console,
) -> None:
    """Prints the plan of one run in full, or a line for each of several, and their totals."""
    if len(arms) == 1:
        show_one(arms[0], card, console)
    else:
        show_many(arms, card, console)
    left = hours(still_to_do(arms))
    cost = "" if price is None else f", {price * left:,.2f} at {price:g} an hour"
    console.print(f"\nStill to do: {left:,.2f} GPU-hours of {card.name}{cost}.")
    if (gpus := max(arm.gpus for arm in arms)) > 1:
        console.print(
            f"{gpus} of them share a run: {left / gpus:,.2f} hours, if none loses time by waiting for others."
        )
    lengths = f"prompts of {assumed.prompt_tokens} tokens, {lengths_words(assumed)}"
    if pace is None:
        adapters = any(arm.size.trained < arm.size.parameters for arm in arms)
        share = ADAPTER_UTILISATION if adapters else UTILISATION
        console.print(
            f"Assumed: {lengths}, {share:.0%} of the card's peak FLOP/s in training. Hours are a bound by "
            "these, and not measured; --like RUN goes by what a run took."
        )
    else:
        factors = ", ".join(f"{stage} {factor:.3g} times" for stage, factor in pace.factors.items())
        console.print(
            f"Hours are what the stages took in {pace.source}, against its plan: {factors}. Other stages are as "
            f"assumed. Assumed: {lengths}."
        )


def lengths_words(assumed: Assumed) -> str:
    """Says how long responses and SFT rows are taken to be."""
    if assumed.responses is None:
        return f"responses and SFT rows {assumed.fullness:.0%} of the longest"
    ended, cut = assumed.responses.ended, assumed.responses.truncated
    return (
        f"responses of {ended:,.0f} tokens and {cut:.1%} of them cut at the longest, as there, "
        f"SFT rows {assumed.fullness:.0%} of the longest"
    )


def table_of(title: str, console: Console) -> Table:
    """Makes a table, of plain characters where the output is a file or a pipe."""
    style = box.HEAVY_HEAD if console.is_terminal else box.ASCII
    return Table(title=title, title_justify="left", box=style)


def show_one(arm: ArmPlan, card: Card, console: Console) -> None:
    """Prints the memory of each stage by part, what to change, and the cost of each stage."""
    parameters, trained = arm.size.parameters, arm.size.trained
    console.print(f"Run {arm.run_id}: {parameters:,} parameters, of which {trained:,} are trained\n")
    parts = [*dict.fromkeys(part for stage in arm.memory for part in stage.parts)]
    room = f"{card.name}: {card.memory / GB:.1f}, usable {card.usable / GB:.1f}"
    table = table_of(f"Memory at its peak, GB ({room})", console)
    table.add_column("part")
    for stage in arm.memory:
        table.add_column(stage.stage, justify="right")
    shapes = [f"{stage.sequences} x {stage.positions:,} tokens" for stage in arm.memory]
    table.add_row("largest pass", *shapes)
    for part in parts:
        sizes = [stage.parts.get(part) for stage in arm.memory]
        table.add_row(part, *("" if size is None else f"{size / GB:.2f}" for size in sizes))
    table.add_row("total", *(f"{stage.total / GB:.2f}" for stage in arm.memory))
    table.add_row("fits", *(verdict(stage.total, card) for stage in arm.memory))
    console.print(table)
    console.print(f"Main memory for the measures of a step's tokens: {arm.main_memory / GB:.2f} GB")
    console.print(f"{advice(arm)}\n", soft_wrap=True)
    table = table_of("Cost", console)
    table.add_column("stage")
    for heading in ("tokens", "FLOPs", "hours"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for one in arm.costs:
        done = "" if one.done is None else f"{one.done}: not counted"
        table.add_row(one.stage, f"{one.tokens:,.0f}", f"{one.flops:.2g}", f"{one.seconds / 3600:.2f}", done)
    console.print(table)


def show_many(arms: Sequence[ArmPlan], card: Card, console: Console) -> None:
    """Prints a line for each arm, and the totals of what is still to do."""
    table = table_of(f"{len(arms)} arms on one {card.name} each", console)
    table.add_column("arm")
    for heading in ("most GB", "tokens", "GPU-hours"):
        table.add_column(heading, justify="right")
    table.add_column("")
    seen: set[str] = set()
    for arm in arms:
        own = [cost for cost in arm.costs if cost.done is None and cost.key not in seen]
        seen |= {cost.key for cost in own}
        done = [f"{cost.stage} {cost.done}" for cost in arm.costs if cost.done is not None]
        shared = [f"{c.stage} shared" for c in arm.costs if c.done is None and c not in own]
        tokens = sum(cost.tokens for cost in own)
        notes = [verdict(arm.largest.total, card), *done, *shared]
        most = f"{arm.largest.total / GB:.1f}"
        table.add_row(arm.name, most, f"{tokens:,.0f}", f"{hours(own):.2f}", ", ".join(notes))
    left = still_to_do(arms)
    table.add_row("total", "", f"{sum(cost.tokens for cost in left):,.0f}", f"{hours(left):.2f}", "")
    console.print(table)
    for line in dict.fromkeys(advice(arm) for arm in arms):
        console.print(line, soft_wrap=True)


def verdict(total: float, card: Card) -> str:
    """Says in a word or two whether so many bytes fit."""
    if total <= card.usable:
        return "fits"
    return "too much" if total > card.memory else "tight"


def advice(arm: ArmPlan) -> str:
    """Says what makes a run fit."""
    if arm.change is None:
        return f"{arm.largest.stage}: no setting of memory makes it fit; take a smaller model or shorter responses"
    if not arm.change:
        return "Everything fits."
    return f"To make it fit: {as_overrides(arm.change)}"
