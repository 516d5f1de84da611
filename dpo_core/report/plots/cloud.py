"""Plots of scores: candidates and pairs of a round, raw scores, and the path of the means over rounds.

Pure functions: arrays in, a matplotlib Figure out, no global pyplot state. Colours are those of Okabe and Ito, which
colour-blind readers can tell apart, and are backed by shape or line style. Sizes are readable at half scale, 512 pixels
wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ...pairs.rules import reward_direction
from ...records import Pair
from ...settings import PairSettings
from ...statistics import standardise

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
MOST_ARROWS = 60

Interval = tuple[float, float]


@dataclass(frozen=True)
class PathPoint:
    """Mean scores of one round (raw fidelity and alignment), with their 95 % intervals where known."""

    label: str
    fidelity: float
    alignment: float
    fidelity_ci95: Interval | None = None
    alignment_ci95: Interval | None = None


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


# --- the cloud of one round ---


def cloud_figure(
    fidelity: np.ndarray,
    alignment: np.ndarray,
    pairs: Sequence[Pair],
    settings: PairSettings,
    title: str = "",
    prompt_of: np.ndarray | None = None,
    most_arrows: int = MOST_ARROWS,
    window: Interval | None = None,
) -> Figure:
    """Scatter plot of one round's candidates, with pairs as arrows and the angle window as a wedge.

    Axes: deviations from the prompt's mean in standard deviations, as pairs are chosen. fidelity, alignment: raw
    scores, float [n], n >= 0; `pairs` index into them; prompt_of: int [n], by default all candidates are of one prompt.
    Arrows run from loser to winner; at most the `most_arrows` longest are drawn. window: the angles that were used, in
    degrees; by default those of the settings if they fix one. Rules other than the angle window have no wedge; if they
    have a reward, an arrow shows the direction in which it rises. The wedge is centred on the mean loser; its hole is
    the margin.
    """
    figure, axes = new_figure(8, 8.1)
    ax = axes[0, 0]
    x, y = (standardise(v, prompt_of) if len(v) else np.zeros(0) for v in (fidelity, alignment))
    for pair in sorted(pairs, key=lambda p: -p.length)[:most_arrows]:
        ends = {"xy": (x[pair.winner], y[pair.winner]), "xytext": (x[pair.loser], y[pair.loser])}
        arrow = {"arrowstyle": "->", "color": INK, "alpha": 0.35, "linewidth": 0.9, "shrinkA": 3, "shrinkB": 3}
        ax.annotate("", **ends, arrowprops=arrow, zorder=2)
    reach = max(1.0, *(1.12 * float(np.abs(v).max(initial=0.0)) for v in (x, y)))
    if window is None and settings.window == "fixed":
        window = (settings.angle_low, settings.angle_high)
    if window is not None and settings.rule == "angle_window":
        _wedge(ax, x, y, pairs, window, settings.margin, reach)
    way = reward_direction(np.zeros(len(x), int) if prompt_of is None else prompt_of, fidelity, alignment, settings)
    if way is not None:
        _reward_way(ax, way, reach)
    _roles(ax, x, y, pairs)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    dress(ax, "fidelity above the prompt's mean (standard deviations)", "alignment above the prompt's mean", title, 14)
    # The legend is outside the axes, where it hides no candidates.
    handles = ax.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3, fontsize=12, frameon=False, handletextpad=0.3)
    return figure


def _reward_way(ax: Axes, degrees: float, reach: float) -> None:
    """Draw the direction in which a rule's reward rises fastest, and the line of equal reward through the mean."""
    from matplotlib.patches import FancyArrowPatch

    across, up = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    far = 0.8 * reach
    ends = (0, 0), (far * across, far * up)
    ax.add_patch(
        FancyArrowPatch(
            *ends, arrowstyle="-|>", color=ORANGE, linewidth=4, mutation_scale=26, shrinkA=0, shrinkB=0, zorder=4
        )
    )
    ax.plot([], [], color=ORANGE, linewidth=4, label=f"reward rises ({degrees:.0f}°)")
    along = np.array([-1.5, 1.5]) * reach
    ax.plot(-along * up, along * across, color=ORANGE, linestyle="--", linewidth=1.5, zorder=1, label="equal reward")


def _wedge(
    ax: Axes, x: np.ndarray, y: np.ndarray, pairs: Sequence[Pair], window: Interval, margin: float, reach: float
) -> None:
    from matplotlib.patches import Wedge

    losers = [p.loser for p in pairs]
    centre = (float(x[losers].mean()), float(y[losers].mean())) if losers else (0.0, 0.0)
    radius = max(0.55 * reach, 1.25 * margin)
    ax.add_patch(
        Wedge(
            centre, radius, *window, width=radius - margin, zorder=1, facecolor=ORANGE,
            edgecolor=ORANGE, alpha=0.3, label=f"window {window[0]:g}° to {window[1]:g}°",
        )
    )  # fmt: skip
    ax.plot(
        *centre,
        marker="+",
        color=INK,
        markersize=12,
        markeredgewidth=2,
        linestyle="none",
        zorder=5,
        label="mean loser" if losers else "mean",
    )


def _roles(ax: Axes, x: np.ndarray, y: np.ndarray, pairs: Sequence[Pair]) -> None:
    """Draw each candidate by its role in pairs: winner, loser, both or none."""
    winners, losers = {p.winner for p in pairs}, {p.loser for p in pairs}
    looks = [
        ("in no pair", set(range(len(x))) - winners - losers, GREY, "o", 22, 0.45),
        ("loser", losers - winners, VERMILLION, "v", 46, 0.9),
        ("winner", winners - losers, BLUE, "o", 46, 0.9),
        ("both, in different pairs", winners & losers, PURPLE, "D", 36, 0.9),
    ]
    for label, members, colour, marker, size, alpha in looks:
        if members:
            chosen = sorted(members)
            ax.scatter(
                x[chosen],
                y[chosen],
                s=size,
                c=colour,
                marker=marker,
                alpha=alpha,
                linewidths=0,
                zorder=3,
                label=f"{label} ({len(chosen)})",
            )


def scores_figure(fidelity: np.ndarray, alignment: np.ndarray, prompt_of: np.ndarray) -> Figure:
    """Scatter plot of raw scores with the mean of each prompt.

    fidelity, alignment: float [n], prompt_of: int [n], n >= 1.
    """
    figure, axes = new_figure(8, 7)
    ax = axes[0, 0]
    ax.scatter(fidelity, alignment, s=22, c=BLUE, alpha=0.45, linewidths=0, label=f"candidates ({len(fidelity)})")
    prompts = np.unique(prompt_of)
    means = np.asarray([[v[prompt_of == p].mean() for v in (fidelity, alignment)] for p in prompts])
    ax.scatter(
        means[:, 0],
        means[:, 1],
        s=52,
        c=VERMILLION,
        marker="D",
        linewidths=0,
        label=f"mean of each prompt ({len(prompts)})",
    )
    dress(
        ax,
        "fidelity (cosine)",
        "alignment (cosine)",
        f"means: fidelity {fidelity.mean():.3f}, alignment {alignment.mean():.3f}",
        14,
    )
    figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        fontsize=12,
        frameon=False,
        handletextpad=0.3,
    )
    return figure


# --- the path of the means ---


def path_figure(rounds: Sequence[PathPoint], curve: Sequence[Mapping[str, float]] = (), title: str = "") -> Figure:
    """Mean scores over rounds in the raw fidelity-alignment plane, beside the curve of plain personalization.

    rounds: in order, the first is the start. curve: items {"step", "fidelity", "alignment"}, in order of steps; may be
    empty.
    """
    figure, axes = new_figure(8, 6.4)
    ax = axes[0, 0]
    if curve:
        look = {"color": GREY, "linestyle": "--", "linewidth": 2, "marker": "s", "markersize": 7, "zorder": 2}
        ax.plot(
            [c["fidelity"] for c in curve], [c["alignment"] for c in curve], **look, label="DreamBooth alone (steps)"
        )
    for point in rounds:
        _error_bars(ax, point)
    x, y = [p.fidelity for p in rounds], [p.alignment for p in rounds]
    ax.plot(x, y, color=BLUE, linewidth=2.2, zorder=4, marker="o", markersize=9, label="preference training (rounds)")
    for i, point in enumerate(rounds):
        # Drawn one by one, so that a later round covers an earlier one together with its number.
        spot = {"color": "white", "fontsize": 12, "fontweight": "bold", "ha": "center", "va": "center"}
        ax.plot(
            point.fidelity,
            point.alignment,
            color=BLUE,
            marker="o",
            markersize=16.5,
            markeredgecolor="white",
            zorder=5 + 2 * i,
        )
        ax.annotate(point.label, (point.fidelity, point.alignment), **spot, zorder=6 + 2 * i)
    ax.margins(0.12)
    dress(ax, "fidelity (mean of held-out pictures)", "alignment (mean of held-out pictures)", title, 14)
    legend = ax.get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2, fontsize=12, frameon=False)
    labelled = [(c["fidelity"], c["alignment"], f"{int(c['step'])}") for c in curve]
    lines = [*_along([(a, b) for a, b, _ in labelled]), *_along(list(zip(x, y, strict=True)))]
    _place_labels(figure, ax, labelled, lines)
    return figure


def _error_bars(ax: Axes, point: PathPoint) -> None:
    for horizontal, ci in ((True, point.fidelity_ci95), (False, point.alignment_ci95)):
        if ci is None or not np.isfinite(ci).all():
            continue
        middle = point.fidelity if horizontal else point.alignment
        # By rounding, a percentile interval of equal values may miss their mean; bars must not be negative.
        ends = np.maximum([[middle - ci[0]], [ci[1] - middle]], 0.0)
        bars = {"xerr": ends} if horizontal else {"yerr": ends}
        ax.errorbar(point.fidelity, point.alignment, **bars, color=BLUE, alpha=0.45, capsize=4, linewidth=1.4, zorder=3)


def _along(points: Sequence[tuple[float, float]], parts: int = 12) -> list[tuple[float, float]]:
    """Points along the polyline through `points`, `parts` a segment, including `points` themselves."""
    steps = [(a, b, i / parts) for a, b in pairwise(points) for i in range(parts)]
    return [(a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1])) for a, b, t in steps] + list(points[-1:])


def _place_labels(
    figure: Figure,
    ax: Axes,
    labelled: Sequence[tuple[float, float, str]],
    others: Sequence[tuple[float, float]],
    distance: float = 20,
) -> None:
    """Put each text beside its point, where it is farthest from `others` and from texts placed before.

    Greedy over eight directions.
    """
    if not labelled:
        return
    figure.draw_without_rendering()
    place = ax.transData.transform
    taken = [place(p) for p in others]
    low, high = ax.transAxes.transform([(0, 0), (1, 1)])
    directions = [(np.cos(a), np.sin(a)) for a in np.radians([315, 225, 45, 135, 270, 90, 0, 180])]
    scale = figure.dpi / 72
    for x, y, text in labelled:
        here = place((x, y))
        around = [here + distance * scale * np.asarray(d) for d in directions]
        spots = [spot for spot in around if (spot > low + 10).all() and (spot < high - 10).all()]
        others_at = np.asarray([t for t in taken if not np.allclose(t, here)]).reshape(-1, 2)
        free = [np.hypot(*(others_at - spot).T).min(initial=1e9) for spot in spots]
        best = spots[int(np.argmax(free))] if spots else here
        taken.append(best)
        offset = (best - here) / scale
        ax.annotate(
            text,
            (x, y),
            textcoords="offset points",
            xytext=tuple(offset),
            fontsize=12,
            color="#565C66",
            ha="center",
            va="center",
            zorder=5,
        )
