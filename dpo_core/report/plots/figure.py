"""The one look of all figures: colours, axes, and a figure as an image.

Colours are told apart by colour-blind eyes (Okabe and Ito's), and backed by shape or line style. Sizes are chosen to be
readable at half scale, 512 pixels wide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, GREY, INK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#AA4499",
    "#E69F00",
    "#8A8F98",
    "#1D2430",
)
DPI = 128


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False)


def dress(ax: Axes, x: str, y: str, title: str = "", size: float = 13) -> None:
    """Apply the common style to an axes: labels, light grid, no box."""
    ax.set_facecolor("white")
    ax.set_xlabel(x, fontsize=size, color=INK)
    ax.set_ylabel(y, fontsize=size, color=INK)
    if title:
        ax.set_title(title, fontsize=size + 1, color=INK, loc="left", fontweight="bold")
    ax.tick_params(labelsize=size - 2, colors=INK)
    ax.grid(True, color="#E6E8EC", linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def figure_image(figure: Figure) -> Image:
    """The figure as an RGB PIL image, at its own size and DPI."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    # Drawn once and read from memory: savefig would draw twice and encode.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
