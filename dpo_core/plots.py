"""Pictures of a run's numbers: the cloud of a round, the path of the means, the training curves.

Pure: arrays in, a matplotlib Figure out, no global pyplot state. Colours are Okabe and Ito's (told apart by colour-blind eyes, and always
backed by shape or line style). Sizes are chosen to be readable at half scale, 512 pixels wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .pairs import Pair, standardise
from .settings import PairSettings
from .training import ALARM_WINDOW

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#AA4499", "#E69F00", "#8A8F98", "#1D2430"
DPI = 128
MOST_ARROWS = 60

Interval = tuple[float, float]


@dataclass(frozen=True)
class PathPoint:
    """Mean scores of one round in the raw fidelity-alignment plane, with their 95 % intervals where they are known."""

    label: str
    fidelity: float
    alignment: float
    fidelity_ci95: Interval | None = None
    alignment_ci95: Interval | None = None


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _dress(ax: Axes, x: str, y: str, title: str = "", size: float = 13) -> None:
    """The one look of all axes: labels, light grid, no box."""
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
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


# --- the cloud of one round ---


def cloud_figure(
    fidelity: np.ndarray,
    alignment: np.ndarray,
    pairs: Sequence[Pair],
    settings: PairSettings,
    title: str = "",
    most_arrows: int = MOST_ARROWS,
) -> Figure:
    """Candidates of one round in the plane where pairs are chosen (both axes standardised over the round), with pairs and angle window.

    fidelity, alignment: raw scores, float [n], n >= 0; `pairs` index into them. Arrows run from loser to winner; of many pairs the
    `most_arrows` longest are drawn. The wedge stands at the mean loser, its hole is the margin.
    """
    figure, axes = _figure(8, 7)
    ax = axes[0, 0]
    x, y = standardise(fidelity), standardise(alignment)
    for pair in sorted(pairs, key=lambda p: -p.length)[:most_arrows]:
        ends = {"xy": (x[pair.winner], y[pair.winner]), "xytext": (x[pair.loser], y[pair.loser])}
        arrow = {"arrowstyle": "->", "color": INK, "alpha": 0.35, "linewidth": 0.9, "shrinkA": 3, "shrinkB": 3}
        ax.annotate("", **ends, arrowprops=arrow, zorder=2)
    reach = max(1.0, *(1.12 * float(np.abs(v).max(initial=0.0)) for v in (x, y)))
    _window(ax, x, y, pairs, settings, reach)
    _roles(ax, x, y, pairs)
    ax.set_xlim(-reach, reach)
    ax.set_ylim(-reach, reach)
    ax.set_aspect("equal")
    _dress(ax, "fidelity (standard deviations of the round)", "alignment (standard deviations)", title, 14)
    # Outside the axes: inside it would hide candidates.
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=12, frameon=False, handletextpad=0.3)
    return figure


def _window(ax: Axes, x: np.ndarray, y: np.ndarray, pairs: Sequence[Pair], settings: PairSettings, reach: float) -> None:
    from matplotlib.patches import Wedge

    losers = [p.loser for p in pairs]
    centre = (float(x[losers].mean()), float(y[losers].mean())) if losers else (0.0, 0.0)
    radius = max(0.55 * reach, 1.25 * settings.margin)
    ax.add_patch(
        Wedge(
            centre, radius, settings.angle_low, settings.angle_high, width=radius - settings.margin, zorder=1, facecolor=ORANGE,
            edgecolor=ORANGE, alpha=0.3, label=f"window {settings.angle_low:g}° to {settings.angle_high:g}°",
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
    """Each candidate by its role in pairs."""
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
                x[chosen], y[chosen], s=size, c=colour, marker=marker, alpha=alpha, linewidths=0, zorder=3, label=f"{label} ({len(chosen)})"
            )


# --- the path of the means ---


def path_figure(rounds: Sequence[PathPoint], curve: Sequence[Mapping[str, float]] = (), title: str = "") -> Figure:
    """Means over rounds in the raw fidelity-alignment plane, against the curve of plain personalization.

    rounds: in order, the first is the start. curve: items {"step", "fidelity", "alignment"}, in order of steps; may be empty.
    """
    figure, axes = _figure(8, 6.4)
    ax = axes[0, 0]
    if curve:
        ax.plot(
            [c["fidelity"] for c in curve], [c["alignment"] for c in curve], color=GREY, linestyle="--", linewidth=2, marker="s", markersize=7,
            zorder=2, label="DreamBooth alone (steps)",
        )  # fmt: skip
    for point in rounds:
        _error_bars(ax, point)
    x, y = [p.fidelity for p in rounds], [p.alignment for p in rounds]
    ax.plot(
        x, y, color=BLUE, linewidth=2.2, zorder=4, marker="o", markersize=19, markeredgecolor="white", label="preference training (rounds)"
    )
    for point in rounds:
        ax.annotate(
            point.label,
            (point.fidelity, point.alignment),
            color="white",
            fontsize=13,
            fontweight="bold",
            ha="center",
            va="center",
            zorder=6,
        )
    ax.margins(0.12)
    _dress(ax, "fidelity (mean of held-out pictures)", "alignment (mean of held-out pictures)", title, 14)
    legend = ax.get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2, fontsize=12, frameon=False, markerscale=0.6)
    labelled = [(c["fidelity"], c["alignment"], f"{int(c['step'])}") for c in curve]
    _place_labels(figure, ax, labelled, list(zip(x, y, strict=True)))
    return figure


def _error_bars(ax: Axes, point: PathPoint) -> None:
    for horizontal, ci in ((True, point.fidelity_ci95), (False, point.alignment_ci95)):
        if ci is None or not np.isfinite(ci).all():
            continue
        middle = point.fidelity if horizontal else point.alignment
        # A percentile interval may, by rounding, miss the mean of equal values: no negative bars.
        ends = np.maximum([[middle - ci[0]], [ci[1] - middle]], 0.0)
        bars = {"xerr": ends} if horizontal else {"yerr": ends}
        ax.errorbar(point.fidelity, point.alignment, **bars, color=BLUE, alpha=0.45, capsize=4, linewidth=1.4, zorder=3)


def _place_labels(
    figure: Figure, ax: Axes, labelled: Sequence[tuple[float, float, str]], others: Sequence[tuple[float, float]], distance: float = 17
) -> None:
    """Put each text beside its point where it is farthest from all points and texts placed before (greedy, eight directions)."""
    if not labelled:
        return
    figure.draw_without_rendering()
    place = ax.transData.transform
    taken = [place(p) for p in [*[(a, b) for a, b, _ in labelled], *others]]
    low, high = ax.transAxes.transform([(0, 0), (1, 1)])
    directions = [(np.cos(a), np.sin(a)) for a in np.radians([315, 225, 45, 135, 270, 90, 0, 180])]
    scale = figure.dpi / 72
    for x, y, text in labelled:
        spots = [place((x, y)) + distance * scale * np.asarray(d) for d in directions]

        def freedom(spot: np.ndarray, here: np.ndarray = place((x, y))) -> float:
            inside = bool((spot > low + 10).all() and (spot < high - 10).all())
            return min((float(np.hypot(*(spot - t))) for t in taken if not np.allclose(t, here)), default=1e9) + (0 if inside else -1e6)

        best = max(spots, key=freedom)
        taken.append(best)
        offset = (best - place((x, y))) / scale
        ax.annotate(
            text, (x, y), textcoords="offset points", xytext=tuple(offset), fontsize=12, color="#565C66", ha="center", va="center", zorder=5
        )


# --- training ---


def training_figure(rounds: Sequence[Sequence[Mapping[str, float]]], warning: float, collapse: float, title: str = "") -> Figure:
    """Loss, implicit accuracy, margin, winner and loser error of all rounds in a row; thin: each step, thick: mean of the last 20.

    rounds: records of each round (fields loss, accuracy, margin, winner_error, loser_error); a round may be empty.
    warning, collapse: limits of the winner's error above the reference's, mean of 20 steps.
    """
    figure, axes = _figure(8, 7, 2, 2)
    if title:
        figure.suptitle(title, fontsize=15, fontweight="bold", color=INK)
    borders = np.cumsum([0, *(len(r) for r in rounds)])
    _curve(axes[0, 0], rounds, "loss", BLUE)
    axes[0, 0].axhline(np.log(2), color=GREY, linestyle=":", linewidth=1.5)
    _dress(axes[0, 0], "step", "", "loss (dots: log 2, no preference)", 12)
    _curve(axes[0, 1], rounds, "accuracy", BLUE)
    axes[0, 1].axhline(0.5, color=GREY, linestyle=":", linewidth=1.5)
    axes[0, 1].set_ylim(-0.03, 1.03)
    _dress(axes[0, 1], "step", "", "implicit accuracy (share)", 12)
    _curve(axes[1, 0], rounds, "margin", BLUE)
    axes[1, 0].axhline(0, color=GREY, linestyle=":", linewidth=1.5)
    _dress(axes[1, 0], "step", "", "margin (squared error)", 12)
    _errors(axes[1, 1], rounds, warning, collapse)
    for ax in axes.flat:
        _mark_rounds(ax, borders)
    return figure


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the last 20 values, fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - ALARM_WINDOW, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _curve(ax: Axes, rounds: Sequence[Sequence[Mapping[str, float]]], field: str, colour: str, style: str = "-", label: str = "") -> None:
    """One field over all rounds; the running mean starts anew with each round, as the reference does."""
    first = 0
    for records in rounds:
        values = np.asarray([r[field] for r in records], np.float64)
        steps = np.arange(first, first + len(values))
        marker = "o" if len(values) == 1 else None
        ax.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
        ax.plot(steps, _running_mean(values), color=colour, linewidth=2.2, linestyle=style, marker=marker, label=label or None)
        first, label = first + len(values), label if len(values) == 0 else ""


def _errors(ax: Axes, rounds: Sequence[Sequence[Mapping[str, float]]], warning: float, collapse: float) -> None:
    _curve(ax, rounds, "winner_error", BLUE, "-", "winner")
    _curve(ax, rounds, "loser_error", VERMILLION, "--", "loser")
    ax.axhline(0, color=GREY, linestyle=":", linewidth=1.5)
    values = [r[f] for records in rounds for r in records for f in ("winner_error", "loser_error")]
    low, high = min([0.0, *values]), max([0.0, *values])
    # The warning line is always in sight; the collapse line only when the curves come near it, or they would lie flat.
    shown = high > 0.5 * collapse
    top = max(high, collapse if shown else warning)
    ax.axhline(warning, color=ORANGE, linewidth=2, linestyle="-.", label=f"winner: warning {warning:g}")
    if shown:
        ax.axhline(collapse, color=INK, linewidth=2, label=f"winner: stop {collapse:g}")
    room = max(top - low, 1e-9)
    ax.set_ylim(low - 0.06 * room, top + 0.45 * room)
    ax.legend(loc="upper left", fontsize=10, frameon=True, framealpha=0.85, edgecolor="none", ncols=1, labelspacing=0.25)
    _dress(ax, "step", "", "error above the reference's", 12)


def _mark_rounds(ax: Axes, borders: np.ndarray) -> None:
    for border in borders[1:-1]:
        ax.axvline(border - 0.5, color=INK, linewidth=1, alpha=0.5)
    if len(borders) > 2:
        for number, (start, end) in enumerate(zip(borders[:-1], borders[1:], strict=True), 1):
            # Of many rounds only some are named, or the names run into each other.
            if end > start and (number - 1) % max(1, (len(borders) - 1) // 6) == 0:
                ax.text(
                    (start + end - 1) / 2, 0.985, f"round {number}" if len(borders) < 6 else f"{number}", transform=ax.get_xaxis_transform(),
                    fontsize=9, color="#565C66", ha="center", va="top",
                    bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
                )  # fmt: skip
