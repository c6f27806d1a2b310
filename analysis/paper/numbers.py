"""Reads the papers' own numbers, tables and Klear-Reasoner's Figures 2-5, from the CSV files beside this file.

Values are handed out as published; nothing is smoothed, rescaled or filled in.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.arms import method_label

DATA = Path(__file__).parent

# A series of curves.csv -> the clip method it is of, or else the name under which it is drawn.
METHOD_OF_SERIES = {"grpo_clip_higher": "clip_higher", "cispo": "cispo", "gppo": "gppo"}
NAME_OF_SERIES = {
    "soft_reward": "Soft reward",
    "hard_reward": "Hard reward",
    "filtered": "Filtered",
    "unfiltered": "Unfiltered",
    "drop_zero_advantage": "w/o zero-advantage groups",
    "keep_zero_advantage": "w/ zero-advantage groups",
}


def published_curves(figure: str) -> pd.DataFrame:
    """Returns every point of one figure ("figure2" ... "figure5"): columns figure, panel, series, step, value.

    Raises ValueError for a figure that `curves.csv` does not hold.
    """
    return _rows("curves.csv", "figure", figure)


def published_table(table: str) -> pd.DataFrame:
    """Returns every cell of one table ("table1", "dapo", ...): columns table, row, column, value (per cent).

    Raises ValueError for a table that `tables.csv` does not hold.
    """
    return _rows("tables.csv", "table", table)


def published_arms(figure: str) -> pd.DataFrame:
    """Returns a figure's curves in the form of `statistics.over_seeds`, so that one function draws all curves.

    The paper shows one curve an arm and no spread: seeds is 1 and half_width is NaN throughout. Raises ValueError
    for a figure that `curves.csv` does not hold.
    """
    points = published_curves(figure)
    methods = points["series"].map(METHOD_OF_SERIES | NAME_OF_SERIES)
    return pd.DataFrame(
        {
            "panel": points["panel"],
            "method": methods,
            "arm": methods.map(method_label),
            "step": points["step"],
            "mean": points["value"],
            "half_width": np.nan,
            "lowest": points["value"],
            "highest": points["value"],
            "seeds": 1,
        }
    )


def _rows(file: str, column: str, wanted: str) -> pd.DataFrame:
    frame = pd.read_csv(DATA / file)
    rows = frame[frame[column] == wanted].reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"{wanted!r} is not in {DATA / file}; it holds {sorted(frame[column].unique())}")
    return rows
