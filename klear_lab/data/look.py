"""Shows prepared data on the console, in 80 columns: steps, counts, histograms, sample rows.

What it shows of a set depends on what the rows have: SFT rows a source, teacher, response and difficulty; RL and
benchmark rows a data source, ability, test cases, and how many completions of a strong model passed.
"""

import io
import textwrap
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, NamedTuple

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from klear_lab.data.prepare import PreparedData
from klear_lab.rows import Row, prompt_text
from klear_lab.verify.registry import verifier_of

WIDTH = 80
HISTOGRAM_WIDTH = 38  # fits two histograms into a line, with a gap
MOST_BARS = 10
MOST_GROUPS = 20  # lines in a table of sources; real data has hundreds of small ones
SAMPLE_WIDTH = 64
FIRST_LINES, LAST_LINES = 7, 3  # shown of a longer text: its beginning, and the answer at its end


@dataclass(frozen=True)
class Histogram:
    """Holds the `bars` of a histogram, label to count, in order; the counts sum to the number of rows.

    `about` is a line below the bars, such as the mean.
    """

    title: str
    about: str
    bars: dict[str, int]


class Judged(NamedTuple):
    """What tables of groups need to know of a row; None also for RL rows, which have neither."""

    correct: bool | None
    difficulty: float | None


def show(data: PreparedData, samples: int, console: Console) -> None:
    """Prints the preparation steps, then each set's counts, histograms and `samples` of its rows."""
    console.print(Text("Preparation", "bold"))
    console.print(steps_table(data.steps))
    for name, rows in [("sft", data.sft_rows), ("rl", data.rl_rows), *data.benchmarks.items()]:
        kind = f"benchmark {name}" if name in data.benchmarks else name
        console.print(Group("", Rule(f"{kind}: {count(len(rows), 'row')}", align="left", style="cyan")))
        if not rows:
            continue
        console.print(groups_table(rows))
        console.print(beside([draw(histogram) for histogram in histograms(rows)]))
        for place in evenly_spaced(len(rows), samples):
            console.print(sample(rows[place], place + 1))


def count(number: int, noun: str) -> str:
    """Writes a number with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def as_text(drawing: RenderableType) -> str:
    """Returns what a console of `WIDTH` columns without colours would show, for a log."""
    console = Console(file=io.StringIO(), width=WIDTH, record=True)
    console.print(drawing)
    return console.export_text().rstrip("\n")


# Steps and groups


def steps_table(steps: Sequence[dict[str, Any]]) -> Table:
    """Makes a table with a line for each preparation step: what it took and kept, and why rows left."""
    table = Table()
    table.add_column("set", no_wrap=True)
    table.add_column("step", overflow="fold")
    table.add_column("taken", justify="right", no_wrap=True)
    table.add_column("kept", justify="right", no_wrap=True)
    table.add_column("dropped", overflow="fold")
    for step in steps:
        dropped = "\n".join(f"{n:,}: {reason}" for reason, n in step["dropped"].items())
        words = (step["set"], step["step"], f"{step['taken']:,}", f"{step['kept']:,}", dropped or "-")
        table.add_row(*map(Text, words))
    return table


def groups_table(rows: Sequence[Row]) -> Table:
    """Makes a table of row counts by where rows come from, the largest first.

    For SFT rows it also shows how many are right, and how difficult they are on average.
    """
    is_sft = "response" in rows[0]
    keys = ("source", "teacher") if is_sft else ("data_source", "ability")
    groups: dict[tuple[str, ...], list[Judged]] = defaultdict(list)
    for row in rows:  # a million rows don't fit into memory with their texts
        groups[tuple(str(row[key]) for key in keys)].append(Judged(row.get("correct"), row.get("difficulty")))
    everything = [judged for of in groups.values() for judged in of]
    table = Table(box=None, show_footer=len(groups) > 1, pad_edge=False)
    for heading, total in zip(keys, ("all", ""), strict=True):
        table.add_column(heading.replace("_", " "), total, overflow="fold")
    numbers = {"rows": lambda of: f"{len(of):,}"}
    if is_sft:
        numbers |= {"right": right_share, "not checked": not_checked, "mean difficulty": mean_difficulty}
    for heading, number in numbers.items():
        table.add_column(heading, number(everything), justify="right", no_wrap=True)
    largest_first = sorted(groups.items(), key=lambda item: -len(item[1]))
    for group, of in largest_first[:MOST_GROUPS]:
        table.add_row(*map(Text, group), *(number(of) for number in numbers.values()))
    rest = [judged for _, of in largest_first[MOST_GROUPS:] for judged in of]
    if rest:
        others = f"{len(groups) - MOST_GROUPS} more"
        table.add_row(others, "", *(number(rest) for number in numbers.values()))
    return table


def right_share(rows: Sequence[Judged]) -> str:
    """Writes how many rows are right, and their share of the rows that are known to be right or wrong."""
    known = [row.correct for row in rows if row.correct is not None]
    return f"{sum(known):,} ({sum(known) / len(known):.1%})" if known else "-"


def not_checked(rows: Sequence[Judged]) -> str:
    """Writes how many rows aren't known to be right or wrong."""
    return f"{sum(row.correct is None for row in rows):,}"


def mean_difficulty(rows: Sequence[Judged]) -> str:
    """Writes the mean difficulty of the rows that have one, "-" where none has."""
    known = [row.difficulty for row in rows if row.difficulty is not None]
    return f"{fmean(known):.3f}" if known else "-"


# Histograms


def histograms(rows: Sequence[Row]) -> Iterator[Histogram]:
    """Yields the histograms that fit the rows: SFT rows have other values to show than RL rows."""
    if "response" in rows[0]:
        found = ((len(prompt_text(row)), len(row["response"]), row["difficulty"]) for row in rows)
        prompts, responses, difficulties = zip(*found, strict=True)
        yield lengths("prompt length (characters)", prompts)
        yield lengths("response length (characters)", responses)
        yield shares("difficulty", difficulties)
        return
    yield lengths("prompt length (characters)", [len(prompt_text(row)) for row in rows])
    tests = [verifier_of(row).count_test_cases(row) for row in rows]
    if any(count is not None for count in tests):
        yield lengths("test cases", tests, "no program")
    if any(row.get("completions") for row in rows):
        passed = [row["passed"] / row["completions"] if row.get("completions") else None for row in rows]
        yield shares("completions that passed", passed, "not tried")


def lengths(title: str, values: Sequence[int | None], unknown: str = "unknown") -> Histogram:
    """Makes a histogram of whole numbers, one bar for each value where they are few.

    Otherwise bins are equally wide, except the last, which reaches from the 99th percentile to the largest value.
    None counts under the label `unknown`.
    """
    known = sorted(value for value in values if value is not None)
    about = f"{known[0]:,} to {known[-1]:,}, median {median(known):,.0f}" if known else "-"
    if len(set(known)) == 1:
        about = "the same for all"
    counts = Counter(known)
    if len(counts) <= MOST_BARS:
        bars = {f"{value:,}": counts[value] for value in sorted(counts)}
        return Histogram(title, about, bars | unlabelled(values, unknown))
    high = known[(99 * len(known) - 1) // 100]
    width = round_width((high - known[0] + 1) / MOST_BARS)
    first, last = known[0] // width, high // width
    bins = Counter(min(value // width, last) for value in known)
    bars = {}
    for number in range(first, last + 1):
        end = max(known[-1], number * width) if number == last else (number + 1) * width - 1
        label = f"{number * width:,}" if end == number * width else f"{number * width:,} to {end:,}"
        bars[label] = bins[number]
    return Histogram(title, about, bars | unlabelled(values, unknown))


def round_width(at_least: float) -> int:
    """Returns the smallest of 1, 2, 5, 10, 20, 50, ... that is no less than `at_least`."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= at_least:
                return factor * power
        power *= 10


def shares(title: str, values: Sequence[float | None], unknown: str = "unknown") -> Histogram:
    """Makes a histogram of numbers from 0 to 1, one bar for each value where they are few.

    Otherwise a bar for each tenth; 1 belongs to the last. None counts under the label `unknown`.
    """
    known = sorted(value for value in values if value is not None)
    about = f"mean {fmean(known):.3f}" if known else "-"
    counts = Counter(f"{value:.3f}" for value in known)
    if len(counts) > MOST_BARS:
        tenths = Counter(min(int(value * 10 + 1e-9), 9) for value in known)
        counts = Counter({f"{i / 10:.1f} to {(i + 1) / 10:.1f}": tenths[i] for i in range(10)})
    return Histogram(title, about, dict(counts) | unlabelled(values, unknown))


def unlabelled(values: Sequence[Any], label: str) -> dict[str, int]:
    """Returns one bar that counts the rows without a value, or no bar where each has one."""
    missing = sum(value is None for value in values)
    return {label: missing} if missing else {}


def draw(histogram: Histogram) -> Table:
    """Draws a histogram with label, bar and count on each line, all of them `HISTOGRAM_WIDTH` wide."""
    labels, numbers = [*histogram.bars], [f"{n:,}" for n in histogram.bars.values()]
    room = HISTOGRAM_WIDTH - max(map(len, labels)) - max(map(len, numbers)) - 2
    longest = max(histogram.bars.values())
    table = Table(
        box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0), title=Text(histogram.title, "bold"),
        title_justify="left", caption=histogram.about, caption_justify="left",
    )  # fmt: skip
    for justify in ("right", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)
    for label, n in histogram.bars.items():
        # A count above 0 gets at least one block, however small its share is.
        length = max(1, round(room * n / longest)) if n else 0
        table.add_row(label, Text("█" * length, "cyan"), f"{n:,}")
    return table


def beside(drawings: Sequence[Table]) -> RenderableType:
    """Lays the tables out in two columns."""
    grid = Table.grid(padding=(0, WIDTH - 2 * HISTOGRAM_WIDTH, 0, 0))
    grid.add_column(width=HISTOGRAM_WIDTH)
    grid.add_column(width=HISTOGRAM_WIDTH)
    for i in range(0, len(drawings), 2):
        grid.add_row()
        grid.add_row(*drawings[i : i + 2])
    return grid


# Sample rows


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """Returns `wanted` row numbers, from 0, spread evenly over all rows: the same ones each time."""
    wanted = min(wanted, total)
    return [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]


def sample(row: Row, number: int) -> RenderableType:
    """Shows one row: its short values in a heading, and below it its texts, shortened."""
    texts = [(message["role"], message["content"]) for message in row["prompt"]]
    if "response" in row:
        texts.append(("response", row["response"]))
    else:
        texts.append(("truth", row["reward_model"]["ground_truth"]))
    long = ("prompt", "response", "reward_model")
    values = ", ".join(f"{key} {value}" for key, value in row.items() if key not in long and value is not None)
    grid = Table.grid(padding=(0, 2, 0, 2))
    grid.add_column(style="cyan", justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in texts:
        grid.add_row(label, Text(shortened(text)))
    return Padding(Group(Text(f"row {number:,}: {harmless(values)}", "bold"), grid), (1, 0, 0, 0))


def shortened(text: str) -> str:
    """Cuts a longer text to its beginning and end, in lines of `SAMPLE_WIDTH`."""
    most = SAMPLE_WIDTH * (FIRST_LINES + LAST_LINES)
    # Wraps no more than it can show: tests of code rows are megabytes.
    lines = wrapped(text[:most])
    if len(text) <= most and len(lines) <= FIRST_LINES + LAST_LINES:
        return "\n".join(lines)
    end = wrapped(text[-SAMPLE_WIDTH * LAST_LINES :])[-LAST_LINES:]
    return "\n".join([*lines[:FIRST_LINES], f"[... {len(text):,} characters in all ...]", *end])


def wrapped(text: str) -> list[str]:
    """Wraps a text into lines no longer than `SAMPLE_WIDTH`; its own line ends stay."""
    return [
        piece
        for line in harmless(text).split("\n")
        for piece in textwrap.wrap(line, SAMPLE_WIDTH, replace_whitespace=False) or [""]
    ]


def harmless(text: str) -> str:
    """Replaces the characters of a text that would steer the terminal."""
    plain = text.expandtabs(4)
    return "".join(
        c if c == "\n" or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for c in plain
    )
