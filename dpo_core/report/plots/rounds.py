"""Plots early stopping: each round's gain with its interval, the round that is kept, and where the loop ended. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...evaluation.stop_rule import Decision, Standing
from .figure import dress, new_figure
from .theme import colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def watch_figure(standings: Sequence[Standing], decision: Decision, title: str = "") -> Figure:
    """Gain of every round over the start, in standard deviations, with 95 % intervals; a line joins the lower bounds.

    A star marks the round that is kept (0: the original), a cross a round in which a guard failed. Intervals of a
    single prompt are left out.
    """
    figure, axes = new_figure(7, 4.2)
    ax = axes[0, 0]
    rounds, gains = [s.round for s in standings], [s.gain.mean for s in standings]
    finite = [s for s in standings if s.gain.high < float("inf")]
    ax.axhline(0, color=colours().grey, linestyle=":", linewidth=1.5)
    ax.plot(
        [0, *(s.round for s in finite)],
        [0, *(s.gain.low for s in finite)],
        color=colours().orange,
        linewidth=1.8,
        label="lower bound",
    )
    for s in finite:
        ax.plot(
            [s.round, s.round],
            [s.gain.low, s.gain.high],
            color=colours().blue,
            linewidth=2.5,
            alpha=0.6,
            solid_capstyle="round",
        )
    ax.plot(rounds, gains, "o", color=colours().blue, markersize=7, label="gain")
    if fallen := [s for s in standings if s.broken]:
        ax.plot(
            [s.round for s in fallen],
            [s.gain.mean for s in fallen],
            "x",
            color=colours().vermillion,
            markersize=13,
            mew=3,
            label="a guard failed",
        )
    at = next((s.gain.mean for s in standings if s.round == decision.kept), 0.0)
    ax.plot([decision.kept], [at], "*", color=colours().ink, markersize=17, label="kept", zorder=5)
    ax.set_xticks([0, *rounds], ["start", *map(str, rounds)])
    dress(ax, "round", "gain on held-out prompts (SD)", title, 12)
    ax.legend(fontsize=11, frameon=False, loc="best")
    return figure
