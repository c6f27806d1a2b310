"""The difficulty filter: keeps SFT rows whose judged difficulty lies in a range (easy, hard, overall)."""

from klear_lab.config import DifficultyFilterConfig
from klear_lab.data.chain_source import Row


def filter_by_difficulty(rows: list[Row], config: DifficultyFilterConfig) -> list[Row]:
    """Rows with minimum <= difficulty <= maximum; `overall` keeps rows without a label too."""
    if (config.minimum, config.maximum) == (0, 1):
        return rows
    return [row for row in rows if row["difficulty"] is not None and in_range(row["difficulty"], config)]


def in_range(difficulty: float, config: DifficultyFilterConfig) -> bool:
    """Both ends included."""
    return config.minimum <= difficulty <= config.maximum
