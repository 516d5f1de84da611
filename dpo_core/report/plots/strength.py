"""Plots of a strength sweep: scores, gain and guards by strength, and held-out images at every strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...evaluation.stop_rule import Interval
from ...evaluation.strength import StrengthPoint, Sweep
from ...run.folder import RunFolder
from .figure import dress, new_figure
from .grids import columns_grid, evenly
from .theme import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

STRIP_PROMPTS = 6


def strength_figure(points: Sequence[StrengthPoint], value: float, title: str = "") -> Figure:
    """Mean fidelity, mean alignment and the combined gain by strength, each with 95 % intervals over prompts.

    points: in rising order of strength, at least one. A star and a dotted line mark `value`, the recommended strength
    (0: the original); crosses mark strengths at which a guard failed. Intervals of a single prompt are left out.
    """
    figure, axes = new_figure(8, 9.6, 3, 1)
    at = [p.strength for p in points]
    _curve(axes[0, 0], at, [p.fidelity for p in points], colours().blue)
    _curve(axes[1, 0], at, [p.alignment for p in points], colours().green)
    ax = axes[2, 0]
    ax.axhline(0, color=colours().grey, linewidth=1.5, linestyle="--")
    _curve(ax, at, [p.gain for p in points], colours().ink, "gain")
    if fallen := [p for p in points if p.broken]:
        look = {
            "color": colours().vermillion,
            "linestyle": "none",
            "marker": "x",
            "markersize": 15,
            "markeredgewidth": 3.5,
            "zorder": 6,
        }
        ax.plot([p.strength for p in fallen], [p.gain.mean for p in fallen], **look, label="a guard failed")
    chosen = next((p.gain.mean for p in points if p.strength == value), 0.0)
    words = f"recommended: {value:g}" if value else "recommended: 0, the original"
    star = {
        "color": colours().vermillion,
        "marker": "*",
        "markersize": 21,
        "markeredgecolor": colours().paper,
        "linestyle": "none",
        "zorder": 7,
    }
    ax.plot([value], [chosen], **star, label=words)
    for other in axes[:, 0]:
        other.axvline(value, color=colours().vermillion, linestyle=":", linewidth=2, zorder=1)
        other.set_xticks(at, [f"{s:g}" for s in at])
    dress(axes[0, 0], "", "fidelity (mean)", title, 15)
    dress(axes[1, 0], "", "alignment (mean)", "", 15)
    dress(ax, "strength of the LoRA", "gain (SD)", "", 15)
    figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=14,
        frameon=False,
        handletextpad=0.4,
    )
    return figure


def _curve(ax: Axes, at: Sequence[float], values: Sequence[Interval], colour: str, label: str = "") -> None:
    """Means joined by a line, with a band and whiskers for the intervals."""
    means, low, high = (np.asarray([getattr(v, name) for v in values]) for name in ("mean", "low", "high"))
    ax.plot(at, means, color=colour, marker="o", markersize=8, linewidth=2.4, label=label or None, zorder=4)
    if np.isfinite([low, high]).all():
        ax.fill_between(at, low, high, color=colour, alpha=0.13, linewidth=0)
        ax.vlines(at, low, high, color=colour, alpha=0.55, linewidth=2)
    ax.margins(y=0.12)


def strength_strip(run: RunFolder, found: Sweep, most: int = STRIP_PROMPTS) -> Image:
    """Image grid of up to `most` held-out prompts (evenly spaced over the list) by strength, first seed of each.

    The recommended strength's column is framed. Raises UserError when an image is missing.
    """
    candidates = run.candidates(found.sets[0])
    firsts = list({c.prompt_index: c for c in reversed(candidates)}.values())[::-1]
    shown = [firsts[i] for i in evenly(len(firsts), most)]
    columns = [run.images(name, [c.position for c in shown]) for name in found.sets]
    strengths = [p.strength for p in found.points]
    labels = [f"{s:g}" if s else "0 (original)" for s in strengths]
    return columns_grid(columns, [c.prompt for c in shown], labels, strengths.index(found.value))
