"""What a source hands to the preparation steps."""

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
    bad_rows: dict[str, dict[str, int]] = field(default_factory=dict)  # set -> reason -> count, where skipped


def prompt_text(row: Row) -> str:
    """What the user says, all turns in one text."""
    return "\n".join(message["content"] for message in row["prompt"])
