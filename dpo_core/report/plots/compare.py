"""Plots of a comparison of LoRAs: the fidelity-alignment plane, and a contact sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...evaluation.compare import WITHOUT, Comparison, Place
from ...run.folder import RunFolder
from .figure import dress, new_figure
from .grids import columns_grid, evenly
from .theme import colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

SHEET_PROMPTS, SHEET_COLUMNS = 6, 12
LEGEND, NAME = 16, 28
"""Most lines of the legend, and most letters of a name in it."""


def plane_figure(found: Comparison) -> Figure:
    """Mean fidelity and alignment of each LoRA, by its rank, with 95 % intervals over prompts and the Pareto front.

    The legend names the first `LEGEND` places, with their gains in standard deviations.
    """
    figure, axes = new_figure(8, 6.4 + 0.12 * min(LEGEND, len(found.places)))
    ax = axes[0, 0]
    front = sorted((p for p in found.places if p.front), key=lambda p: p.fidelity.mean)
    if len(front) > 1:
        ax.plot(
            [p.fidelity.mean for p in front], [p.alignment.mean for p in front], color=colours().grey, linestyle="--",
            linewidth=2, label="Pareto front: no other has both higher", zorder=2,
        )  # fmt: skip
    for number, place in reversed(list(enumerate(found.places, 1))):
        _point(ax, number, place, _colour(place, found.best))
    for number, place in enumerate(found.places[:LEGEND], 1):
        _name(ax, number, place, _colour(place, found.best))
    if any(p.broken for p in found.places):
        ax.plot([], [], **_failed(13), label="a guard failed")
    ax.margins(0.12)
    dress(ax, "fidelity (mean of held-out pictures)", "alignment (mean of held-out pictures)", "", 14)
    figure.legend(
        *ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=12, frameon=False
    )  # fmt: skip
    return figure


def _failed(size: float) -> dict:
    """The look of a cross over a LoRA with which a guard failed."""
    return {"color": colours().ink, "marker": "x", "markersize": size, "markeredgewidth": 2.5, "linestyle": "none"}


def _name(ax: Axes, number: int, place: Place, colour: str) -> None:
    """A line of the legend: rank, name, gain."""
    short = place.name if len(place.name) <= NAME else f"{place.name[: NAME - 1]}…"
    label = f"{number}  {short}: {place.gain.mean:+.2f}"
    ax.plot([], [], color=colour, marker="o", markersize=11, linestyle="none", label=label)


def _colour(place: Place, best: str) -> str:
    return colours().vermillion if place.name == best else colours().grey if place.name == WITHOUT else colours().blue


def _point(ax: Axes, number: int, place: Place, colour: str) -> None:
    x, y = place.fidelity, place.alignment
    for horizontal, value in ((True, x), (False, y)):
        ends = np.asarray([[value.mean - value.low], [value.high - value.mean]])
        if np.isfinite(ends).all():
            bars = {"xerr" if horizontal else "yerr": np.maximum(ends, 0.0)}
            ax.errorbar(x.mean, y.mean, **bars, color=colour, alpha=0.4, capsize=3, linewidth=1.3, zorder=3)
    ax.plot(
        x.mean, y.mean, color=colour, marker="o", markersize=17, markeredgecolor=colours().paper, zorder=40 - number
    )
    size = 12 if number < 10 else 9.5  # two digits within the marker
    spot = {"color": colours().inside, "fontsize": size, "fontweight": "bold", "ha": "center", "va": "center"}
    ax.annotate(str(number), (x.mean, y.mean), **spot, zorder=40.5 - number)
    if place.broken:
        ax.plot(x.mean, y.mean, **_failed(27), zorder=39 - number)


def contact_sheet(run: RunFolder, found: Comparison, sets: Mapping[str, str], most: int = SHEET_COLUMNS) -> Image:
    """Grid of up to `SHEET_PROMPTS` held-out prompts (evenly spaced) by LoRA in the order of rank, first seed of each.

    sets: set name by LoRA's name. At most `most` columns: the first ones, with the model without a LoRA always there.
    Raises UserError when an image is missing.
    """
    names = [place.name for place in found.places]
    shown = names[:most] if WITHOUT in names[:most] else [*names[: most - 1], WITHOUT]
    candidates = run.candidates(sets[WITHOUT])
    firsts = list({c.prompt_index: c for c in reversed(candidates)}.values())[::-1]
    rows = [firsts[i] for i in evenly(len(firsts), SHEET_PROMPTS)]
    columns = [run.images(sets[name], [c.position for c in rows]) for name in shown]
    short = short_names([name for name in names if name != WITHOUT])
    labels = [f"{names.index(name) + 1}\n{short.get(name, name)}" for name in shown]
    return columns_grid(columns, [c.prompt for c in rows], labels, shown.index(found.best))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without what all begin with, up to its last sign: my_cat-02, my_cat-10 -> 02, 10. A single name stays."""
    alike = [len(set(letters)) == 1 for letters in zip(*names, strict=False)]  # by place, up to the shortest name
    common = names[0][: (*alike, False).index(False)] if len(names) > 1 else ""
    cut = max((i + 1 for i, letter in enumerate(common) if letter in "-_/\\."), default=0)
    return {name: name[cut:] or name for name in names}
