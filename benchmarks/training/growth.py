"""Growth of a training step's cost with resolution, rank and batch: measured seconds and fitted powers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...dpo_core.report.plots.figure import dress, new_figure
from ...dpo_core.report.plots.theme import colours
from ...dpo_core.run.files import atomic_path
from ..common.command import write_result
from ..common.estimates import power_law
from .worker import Task

UNITS = {"resolution": "resolution (pixels per side)", "rank": "rank of the LoRA", "batch": "batch (pairs per step)"}


def axes_of(task: Task) -> dict[str, list[int]]:
    """The values of each axis; the other two are those of the task."""
    side = task.resolution
    return {"resolution": [side, 3 * side // 2, 2 * side, 3 * side], "rank": [4, 16, 64, 128], "batch": [1, 2, 4, 8]}


def growth(task: Task, run: Callable[[Task], dict], out: Path) -> dict:
    """Measure every axis with a filled reference bank, print its power, and write training_growth_<model>.json and .png
    into `out`.
    """
    found: dict[str, dict] = {}
    for axis, values in axes_of(task).items():
        tasks = [replace(task, **{axis: v}, settings={"reference_bank": 1}, phases=False) for v in values]
        seconds = [run(one)["seconds_per_step"] for one in tasks]
        power, factor = power_law(values, seconds)
        found[axis] = {"values": values, "seconds_per_step": seconds, "exponent": power, "factor": factor}
        measured = ", ".join(f"{v}: {s:.3g} s" for v, s in zip(values, seconds, strict=True))
        print(f"{axis}: {measured}; exponent {power:.2f}", flush=True)
    title = f"{task.model}: {task.batch} pairs of {task.resolution} px, rank {task.rank}, {task.device}"
    path = out / f"training_growth_{task.model}.png"
    with atomic_path(path) as beside:
        growth_figure(found, title).savefig(beside)
    write_result(path.with_suffix(".json"), found, path.name)
    return found


def growth_figure(found: Mapping[str, Mapping], title: str):
    """Seconds per step against each axis, both logarithmic, with the fitted power as a dashed line."""
    figure, axes = new_figure(12, 4, 1, len(found))
    figure.suptitle(title, fontsize=13)
    for ax, (name, row) in zip(axes.flat, found.items(), strict=True):
        values, seconds = np.asarray(row["values"], float), row["seconds_per_step"]
        fitted = row["factor"] * values ** row["exponent"]
        ax.plot(values, fitted, color=colours().grey, linestyle="--", label=f"power {row['exponent']:.2f}")
        ax.plot(values, seconds, color=colours().blue, marker="o", linestyle="none", label="measured")
        ax.set(xscale="log", yscale="log")
        ax.set_xticks(values, [f"{v:g}" for v in values], minor=False)
        ax.set_xticks([], minor=True)
        dress(ax, UNITS[name], "seconds per step" if name == "resolution" else "")
        ax.legend(frameon=False, fontsize=11)
    return figure
