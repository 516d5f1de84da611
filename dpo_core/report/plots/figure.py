"""The one look of all figures: axes, and a figure as an image. Colours: theme.py.

Sizes are chosen to be readable at half scale, 512 pixels wide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .theme import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

DPI = 128


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=colours().paper)
    return figure, figure.subplots(rows, columns, squeeze=False)


def dress(ax: Axes, x: str, y: str, title: str = "", size: float = 13) -> None:
    """Apply the common style to an axes: labels, light grid, no box."""
    ax.set_facecolor(colours().paper)
    ax.set_xlabel(x, fontsize=size, color=colours().ink)
    ax.set_ylabel(y, fontsize=size, color=colours().ink)
    if title:
        ax.set_title(title, fontsize=size + 1, color=colours().ink, loc="left", fontweight="bold")
    ax.tick_params(labelsize=size - 2, colors=colours().ink)
    ax.grid(True, color=colours().mesh, linewidth=0.8)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side not in ("top", "right"))
        spine.set_edgecolor(colours().ink)
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_offset_text().set_color(colours().ink)


def figure_image(figure: Figure) -> Image:
    """The figure as an RGB PIL image, at its own size and DPI, in the theme that it was made in."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    for legend in (*figure.legends, *filter(None, (ax.get_legend() for ax in figure.axes))):
        for text in legend.get_texts():
            text.set_color(colours().ink)
    # Drawn once and read from memory: savefig would draw twice and encode.
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
