"""Each method as a path: in the fidelity-alignment plane, and in the plane of reward and truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRUTH = "oracle_all_right"
Ends = Mapping[int, tuple[dict, int, int]]


def mean_path(found: Ends, score: str) -> np.ndarray:
    """Means over concepts of a score from the start to the end, [points]; concepts that ended sooner count as far as
    all go.
    """
    length = min(at - since for _, since, at in found.values())
    return np.mean([m["scores"][score]["all"][since : since + length + 1] for m, since, _ in found.values()], axis=0)


def methods_figure(results: Mapping[int, dict], rows: Mapping[str, Ends]) -> Figure:
    """rows: of each method and concept (measures, index of the start, index of the end); results tells how many
    concepts there are.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 6.4), layout="constrained")
    plane, truth = figure.subplots(1, 2)
    for i, (name, found) in enumerate(rows.items()):
        # From each row's own start: not every row was run on the same concepts.
        fidelity, alignment, right = (
            path - path[0] for path in (mean_path(found, s) for s in ("fidelity", "alignment", TRUTH))
        )
        style = {
            "color": f"C{i % 10}",
            "marker": "os^Dv"[i // 10 % 5],
            "markersize": 4,
            "linewidth": 2.6 if i == 0 else 1.3,
            "zorder": 3 - (i > 0),
        }
        plane.plot(fidelity, alignment, "-", **style, label=name)
        reward = (fidelity + alignment) / 2
        truth.plot(reward, right * 100, "-", **style, label=name)
        for ax, x, y in ((plane, fidelity[-1], alignment[-1]), (truth, reward[-1], right[-1] * 100)):
            ax.annotate(name, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=8, color=style["color"])
    for ax in (plane, truth):
        ax.grid(True, color="#E6E8EC")
    counts = sorted({len(found) for found in rows.values()} or {len(results)})
    many = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    count = f"means over {many} concepts, held-out prompts; each path begins at the start"
    plane.set(xlabel="fidelity, change", ylabel="alignment, change", title="Where each method leads, round by round")
    truth.set(
        xlabel="reward, mean of fidelity and alignment, change",
        ylabel="all-right pictures, change (points)",
        title="Reward and truth: up is right, to the right alone is hacked",
    )
    figure.suptitle(count, fontsize=11)
    figure.legend(*plane.get_legend_handles_labels(), loc="outside lower center", ncols=9, fontsize=8, frameon=False)
    return figure
