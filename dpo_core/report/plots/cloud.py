"""The cloud of a round: candidates by their scores, with pairs and the pair rule. Pure: arrays in, a Figure out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...pairs.rules import reward_direction
from ...records import Pair
from ...settings import PairSettings
from ...statistics import standardise
from .figure import dress, new_figure
from .theme import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ARROWS = 60

Interval = tuple[float, float]


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
        arrow = {
            "arrowstyle": "->",
            "color": colours().ink,
            "alpha": 0.35,
            "linewidth": 0.9,
            "shrinkA": 3,
            "shrinkB": 3,
        }
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
            *ends,
            arrowstyle="-|>",
            color=colours().orange,
            linewidth=4,
            mutation_scale=26,
            shrinkA=0,
            shrinkB=0,
            zorder=4,
        )
    )
    ax.plot([], [], color=colours().orange, linewidth=4, label=f"reward rises ({degrees:.0f}°)")
    along = np.array([-1.5, 1.5]) * reach
    ax.plot(
        -along * up,
        along * across,
        color=colours().orange,
        linestyle="--",
        linewidth=1.5,
        zorder=1,
        label="equal reward",
    )


def _wedge(
    ax: Axes, x: np.ndarray, y: np.ndarray, pairs: Sequence[Pair], window: Interval, margin: float, reach: float
) -> None:
    from matplotlib.patches import Wedge

    losers = [p.loser for p in pairs]
    centre = (float(x[losers].mean()), float(y[losers].mean())) if losers else (0.0, 0.0)
    radius = max(0.55 * reach, 1.25 * margin)
    ax.add_patch(
        Wedge(
            centre, radius, *window, width=radius - margin, zorder=1, facecolor=colours().orange,
            edgecolor=colours().orange, alpha=0.3, label=f"window {window[0]:g}° to {window[1]:g}°",
        )
    )  # fmt: skip
    ax.plot(
        *centre,
        marker="+",
        color=colours().ink,
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
        ("in no pair", set(range(len(x))) - winners - losers, colours().grey, "o", 22, 0.45),
        ("loser", losers - winners, colours().vermillion, "v", 46, 0.9),
        ("winner", winners - losers, colours().blue, "o", 46, 0.9),
        ("both, in different pairs", winners & losers, colours().purple, "D", 36, 0.9),
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
    ax.scatter(
        fidelity, alignment, s=22, c=colours().blue, alpha=0.6, linewidths=0, label=f"candidates ({len(fidelity)})"
    )
    prompts = np.unique(prompt_of)
    means = np.asarray([[v[prompt_of == p].mean() for v in (fidelity, alignment)] for p in prompts])
    ax.scatter(
        means[:, 0],
        means[:, 1],
        s=52,
        c=colours().vermillion,
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
