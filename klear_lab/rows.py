"""Rows: raw ones, good or bad, and the sets of rows that a data source hands to the preparation steps."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

Row = dict[str, Any]  # an RL row in the released Klear format or an SFT row in ours (docs/data.md)


@dataclass(frozen=True)
class Source:
    """Holds a data source's rows. `quality_order`: the names in their `source` field, the best first."""

    sft_rows: Sequence[Row]
    rl_rows: list[Row]
    benchmarks: dict[str, list[Row]]
    quality_order: list[str]
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)  # set -> reason -> how many it left out


class BadRow(ValueError):
    """Says that a row can't be used; reports count it under its `reason`."""

    def __init__(self, reason: str, message: str, count: int = 1, mapping: dict[str, Any] | None = None) -> None:
        """`count` rows are lost with it; `mapping` has columns that would read it, by key of ours."""
        super().__init__(message)
        self.reason, self.count, self.mapping = reason, count, mapping


@dataclass(frozen=True)
class RawRow:
    """Holds a row as it stands in a file: `content` is its object, or why there is none."""

    place: str  # the file and its line or row, for messages
    name: str  # the id of a row that brings none
    content: dict[str, Any] | BadRow


def places_in_epochs(count: int, positions: range, seed_name: str) -> list[int]:
    """Returns the places, among `count` rows, of some positions in shuffled epochs.

    Every row comes once before any comes again; `seed_name` names the order of each epoch.
    """
    pairs = (divmod(position, count) for position in positions)
    return [shuffled_order(count, f"{seed_name}-{epoch}")[index] for epoch, index in pairs]


@lru_cache(maxsize=2)
def shuffled_order(count: int, name: str) -> list[int]:
    """Returns the order of `count` rows that a name gives them."""
    order = list(range(count))
    random.Random(name).shuffle(order)
    return order


def prompt_text(row: Row) -> str:
    """Joins the texts of a row's messages, with a line end between them."""
    return "\n".join(message["content"] for message in row["prompt"])


def shown(value: Any) -> str:
    """Writes a value's type and beginning, for messages."""
    text = repr(value[:60] if isinstance(value, str | list) else value)
    return f"{type(value).__name__} {text[:80]}{'...' if len(text) > 80 else ''}"
