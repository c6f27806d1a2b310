"""What a source hands to the preparation steps, and what it is made from: raw rows, good and bad."""

from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]  # an SFT row or an RL row, in the formats of the design's contracts


@dataclass(frozen=True)
class Source:
    """Rows as a source has them. `quality_order`: the names in their `source` field, the best first."""

    sft_rows: list[Row]
    rl_rows: list[Row]
    benchmarks: dict[str, list[Row]]
    quality_order: list[str]
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)  # set -> reason -> count, where left out


class BadRow(ValueError):
    """A row that can't be used; `reason` is what it is counted under."""

    def __init__(self, reason: str, message: str, count: int = 1, mapping: dict[str, Any] | None = None) -> None:
        """`count`: how many rows are lost with it. `mapping`: columns that would read it, by key of ours."""
        super().__init__(message)
        self.reason, self.count, self.mapping = reason, count, mapping


@dataclass(frozen=True)
class RawRow:
    """A row as it stands in a file: `content` is an object, or why there is none."""

    place: str
    name: str  # the id of a row that brings none
    content: dict[str, Any] | BadRow


def prompt_text(row: Row) -> str:
    """What the user says, all turns in one text."""
    return "\n".join(message["content"] for message in row["prompt"])


def shown(value: Any) -> str:
    """A value's type and beginning, for messages."""
    text = repr(value[:60] if isinstance(value, str | list) else value)
    return f"{type(value).__name__} {text[:80]}{'...' if len(text) > 80 else ''}"
