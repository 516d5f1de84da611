"""Plots the training curves of all rounds with the winner-error limits. Pure, like cloud.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ...training.objectives import NO_PREFERENCE
from ...training.steps import ALARM_WINDOW
from .figure import dress, new_figure
from .theme import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Records = Sequence[Sequence[Mapping[str, float]]]
"""Training records by round and step."""


def training_figure(
    rounds: Records,
    warning: float,
    collapse: float,
    title: str = "",
    objective: str = "dpo",
    beta_range: tuple[float, float] | None = None,
) -> Figure:
    """Loss, implicit accuracy, margin, and winner and loser error of all rounds in a row.

    Thin lines are single steps, thick lines the mean of the last 20. rounds: records of each round (fields loss,
    accuracy, margin, winner_error, loser_error); a round may be empty. warning, collapse: limits of the winner's error
    above the reference's, mean of 20 steps. objective: the name of the loss; where its value without a preference is
    known, a dotted line shows it. Where records have a beta (auto-beta), it stands over the margins on an axis of its
    own; `beta_range` gives its floor and ceiling.
    """
    figure, axes = new_figure(8, 7.3, 2, 2)
    if title:
        figure.suptitle(title, fontsize=15, fontweight="bold", color=colours().ink)
    borders = np.cumsum([0, *(len(r) for r in rounds)])
    _curve(axes[0, 0], rounds, "loss", colours().blue)
    level = NO_PREFERENCE.get(objective)
    if level is not None:
        axes[0, 0].axhline(level, color=colours().grey, linestyle=":", linewidth=1.5)
    dress(axes[0, 0], "step", "", "loss" if level is None else f"loss (dots: {level:.3g}, no preference)", 12)
    _curve(axes[0, 1], rounds, "accuracy", colours().blue)
    axes[0, 1].axhline(0.5, color=colours().grey, linestyle=":", linewidth=1.5)
    axes[0, 1].set_ylim(-0.03, 1.03)
    dress(axes[0, 1], "step", "", "implicit accuracy (share)", 12)
    _curve(axes[1, 0], rounds, "margin", colours().blue)
    axes[1, 0].axhline(0, color=colours().grey, linestyle=":", linewidth=1.5)
    dress(axes[1, 0], "step", "", "margin (squared error)", 12)
    _betas(axes[1, 0], rounds, beta_range)
    _errors(axes[1, 1], rounds, warning, collapse)
    for ax in axes.flat:
        _mark_rounds(ax, borders)
    handles = axes[1, 1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower right", ncols=4, fontsize=11, frameon=False, handlelength=2.4)
    return figure


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the last 20 values at each position, of fewer at the start: float [n] -> float [n]."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - ALARM_WINDOW, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _curve(ax: Axes, rounds: Records, field: str, colour: str, style: str = "-", label: str = "") -> None:
    """Plot one field over all rounds. The running mean restarts with each round, because the reference does."""
    first = 0
    for records in rounds:
        values = np.asarray([r[field] for r in records], np.float64)
        steps = np.arange(first, first + len(values))
        marker = "o" if len(values) == 1 else None
        ax.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
        ax.plot(
            steps,
            running_mean(values),
            color=colour,
            linewidth=2.2,
            linestyle=style,
            marker=marker,
            label=label or None,
        )
        first, label = first + len(values), label if len(values) == 0 else ""


def _betas(ax: Axes, rounds: Records, limits: tuple[float, float] | None) -> None:
    """Plot beta at the right of the margins, with its floor and ceiling; nothing where it is not adapted."""
    if not any("beta" in r for records in rounds for r in records):
        return
    right, first = ax.twinx(), 0
    for records in rounds:
        steps = np.arange(first, first + len(records))
        right.plot(
            steps, [r.get("beta", np.nan) for r in records], color=colours().orange, linewidth=1.8, linestyle="--"
        )
        first += len(records)
    for limit in limits or ():
        right.axhline(limit, color=colours().orange, linestyle=":", linewidth=1.2)
    right.set_yscale("log")
    low, high = limits or right.get_ylim()
    right.set_ylim(low / 1.3, high * 1.3)
    right.set_ylabel("beta (dashes; dots: limits)", fontsize=11, color=colours().orange)
    right.tick_params(axis="y", labelsize=10, colors=colours().orange)
    for side, spine in right.spines.items():
        spine.set_visible(side == "right")
        spine.set_edgecolor(colours().orange)


def _errors(ax: Axes, rounds: Records, warning: float, collapse: float) -> None:
    _curve(ax, rounds, "winner_error", colours().blue, "-", "winner")
    _curve(ax, rounds, "loser_error", colours().vermillion, "--", "loser")
    ax.axhline(0, color=colours().grey, linestyle=":", linewidth=1.5)
    values = [r[f] for records in rounds for r in records for f in ("winner_error", "loser_error")]
    low, high = min([0.0, *values]), max([0.0, *values])
    # The warning line is always shown; the collapse line only when the curves come near it, else they would look flat.
    shown = high > 0.5 * collapse
    top = max(high, collapse if shown else warning)
    ax.axhline(warning, color=colours().orange, linewidth=2, linestyle="-.", label=f"winner: warning {warning:g}")
    if shown:
        ax.axhline(collapse, color=colours().ink, linewidth=2, label=f"winner: stop {collapse:g}")
    room = max(top - low, 1e-9)
    ax.set_ylim(low - 0.06 * room, top + 0.16 * room)
    dress(ax, "step", "", "error above the reference's", 12)


def _mark_rounds(ax: Axes, borders: np.ndarray) -> None:
    for border in borders[1:-1]:
        ax.axvline(border - 0.5, color=colours().ink, linewidth=1, alpha=0.5)
    if len(borders) > 2:
        for number, (start, end) in enumerate(pairwise(borders), 1):
            # With many rounds only some are labelled, so that labels do not overlap.
            if end > start and (number - 1) % max(1, (len(borders) - 1) // 6) == 0:
                name = f"round {number}" if len(borders) < 6 else f"{number}"
                ax.text(
                    (start + end - 1) / 2, 0.985, name, transform=ax.get_xaxis_transform(),
                    fontsize=9, color=colours().faint, ha="center", va="top",
                    bbox={"facecolor": colours().paper, "alpha": 0.7, "edgecolor": "none", "pad": 1},
                )  # fmt: skip
