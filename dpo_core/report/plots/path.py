"""The path of a run's mean scores over its rounds. Pure: numbers in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .figure import dress, new_figure
from .theme import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Interval = tuple[float, float]


@dataclass(frozen=True)
class PathPoint:
    """Mean scores of one round (raw fidelity and alignment), with their 95 % intervals where known."""

    label: str
    fidelity: float
    alignment: float
    fidelity_ci95: Interval | None = None
    alignment_ci95: Interval | None = None


def path_figure(rounds: Sequence[PathPoint], curve: Sequence[Mapping[str, float]] = (), title: str = "") -> Figure:
    """Mean scores over rounds in the raw fidelity-alignment plane, beside the curve of plain personalization.

    rounds: in order, the first is the start. curve: items {"step", "fidelity", "alignment"}, in order of steps; may be
    empty.
    """
    figure, axes = new_figure(8, 6.4)
    ax = axes[0, 0]
    if curve:
        look = {"color": colours().grey, "linestyle": "--", "linewidth": 2, "marker": "s", "markersize": 7, "zorder": 2}
        ax.plot(
            [c["fidelity"] for c in curve], [c["alignment"] for c in curve], **look, label="DreamBooth alone (steps)"
        )
        _step_numbers(ax, curve)
    for point in rounds:
        _error_bars(ax, point)
    x, y = [p.fidelity for p in rounds], [p.alignment for p in rounds]
    ax.plot(
        x,
        y,
        color=colours().blue,
        linewidth=2.2,
        zorder=4,
        marker="o",
        markersize=9,
        label="preference training (rounds)",
    )
    for i, point in enumerate(rounds):
        # Drawn one by one, so that a later round covers an earlier one together with its number.
        spot = {"color": colours().inside, "fontsize": 12, "fontweight": "bold", "ha": "center", "va": "center"}
        ax.plot(
            point.fidelity,
            point.alignment,
            color=colours().blue,
            marker="o",
            markersize=16.5,
            markeredgecolor=colours().paper,
            zorder=5 + 2 * i,
        )
        ax.annotate(point.label, (point.fidelity, point.alignment), **spot, zorder=6 + 2 * i)
    ax.margins(0.12)
    dress(ax, "fidelity (mean of held-out pictures)", "alignment (mean of held-out pictures)", title, 14)
    legend = ax.get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2, fontsize=12, frameon=False)
    return figure


def _error_bars(ax: Axes, point: PathPoint) -> None:
    for horizontal, ci in ((True, point.fidelity_ci95), (False, point.alignment_ci95)):
        if ci is None or not np.isfinite(ci).all():
            continue
        middle = point.fidelity if horizontal else point.alignment
        # By rounding, a percentile interval of equal values may miss their mean; bars must not be negative.
        ends = np.maximum([[middle - ci[0]], [ci[1] - middle]], 0.0)
        bars = {"xerr": ends} if horizontal else {"yerr": ends}
        ax.errorbar(
            point.fidelity,
            point.alignment,
            **bars,
            color=colours().blue,
            alpha=0.45,
            capsize=4,
            linewidth=1.4,
            zorder=3,
        )


def _step_numbers(ax: Axes, curve: Sequence[Mapping[str, float]]) -> None:
    """The number of steps below each point of the curve, with a white rim to be read over lines."""
    from matplotlib.patheffects import withStroke

    look = {"fontsize": 12, "color": colours().faint, "ha": "center", "va": "top", "zorder": 5}
    for item in curve:
        at = (item["fidelity"], item["alignment"])
        rim = [withStroke(linewidth=3, foreground=colours().paper)]
        ax.annotate(f"{int(item['step'])}", at, xytext=(0, -12), textcoords="offset points", path_effects=rim, **look)
