"""The difficulty filter: keeps SFT rows whose judged difficulty lies in a range (easy, hard, overall)."""

from klear_lab.config import DifficultyFilterConfig
from klear_lab.rows import Row


def why_not_in_range(row: Row, config: DifficultyFilterConfig) -> str | None:
    """Returns why a row leaves, or None if it stays. Both ends of the range belong to it."""
    if row["difficulty"] is None:
        return "no difficulty label"
    return None if config.minimum <= row["difficulty"] <= config.maximum else "other difficulty"
