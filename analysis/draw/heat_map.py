"""Draws a map of shares: cells in colour, with their numbers."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.image import AxesImage


def draw_map(ax: Axes, mean_RC: npt.NDArray[np.float64], letters: float | None = None) -> AxesImage:
    """Draws rows and columns of shares from 0 to 1; NaN stays empty. `letters` is the numbers' size in points."""
    image = ax.imshow(mean_RC, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (row, column), mean in np.ndenumerate(mean_RC):
        word, colour = "" if np.isnan(mean) else f"{mean:.2f}", "white" if mean < 0.6 else "black"
        ax.text(column, row, word, ha="center", va="center", color=colour, fontsize=letters)
    ax.spines[:].set_visible(False)
    return image
