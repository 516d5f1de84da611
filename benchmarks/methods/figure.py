"""Each method as a path: in the plane of fidelity and alignment, and in the plane of reward and truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..common.concepts import TRUTH

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Ends = Mapping[int, tuple[dict, int, int]]
"""Result of gains.ends: {concept: (measures, index of the start, index of the end)}."""


def mean_path(found: Ends, score: str) -> np.ndarray:
    """Mean over concepts of a score from the start to the end, [points]; as many points as all concepts have."""
    length = min(at - since for _, since, at in found.values())
    return np.mean([m["scores"][score]["all"][since : since + length + 1] for m, since, _ in found.values()], axis=0)


def methods_figure(rows: Mapping[str, Ends]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.4), layout="constrained")
    plane, truth = figure.subplots(1, 2)
    named = []
    for i, (name, found) in enumerate(rows.items()):
        # Changes from each row's own start: not every row was run on the same concepts.
        paths = (mean_path(found, s) for s in ("fidelity", "alignment", TRUTH))
        fidelity, alignment, right = (path - path[0] for path in paths)
        style = {"color": f"C{i % 10}", "marker": "os^Dv"[i // 10 % 5], "markersize": 4}
        style |= {"linewidth": 2.6 if i == 0 else 1.3, "zorder": 3 - (i > 0)}
        plane.plot(fidelity, alignment, "-", **style, label=name)
        reward = (fidelity + alignment) / 2
        truth.plot(reward, right * 100, "-", **style, label=name)
        for ax, x, y in ((plane, fidelity[-1], alignment[-1]), (truth, reward[-1], right[-1] * 100)):
            named.append((ax, name, (x, y), style["color"]))
    for ax in (plane, truth):
        ax.grid(True, color="#E6E8EC")
        ax.margins(x=0.16)  # room for the names
    for ax, name, end, colour in named:
        right_half = end[0] > np.mean(ax.get_xlim())  # there a long name would leave the axes
        place = {"xytext": (-6, 3), "ha": "right"} if right_half else {"xytext": (4, 3)}
        ax.annotate(name, end, textcoords="offset points", fontsize=8, color=colour, **place)
    counts = sorted({len(found) for found in rows.values()})
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    figure.suptitle(f"means over {many} concepts, held-out prompts; each path begins at the start", fontsize=11)
    plane.set(xlabel="fidelity, change", ylabel="alignment, change", title="Where each method leads, round by round")
    truth.set(
        xlabel="reward, mean of fidelity and alignment, change",
        ylabel="all-right pictures, change (points)",
        title="Reward and truth: up is right; right without up is reward hacking",
    )
    figure.legend(*plane.get_legend_handles_labels(), loc="outside lower center", ncols=9, fontsize=8, frameon=False)
    return figure
