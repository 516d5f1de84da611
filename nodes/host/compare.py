"""Data for the page's before/after slider: names and scores of pictures in the run folder.

The page loads the pictures itself; nothing is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...dpo_core.report.plots.grids import evenly
from ...dpo_core.run.folder import RunFolder
from ...metrics.sets import role_of

if TYPE_CHECKING:
    from ...dpo_core.evaluation.held_out import Measured

_PROMPTS, _SEEDS = 24, 3
"""The most prompts, and seeds per prompt, that are offered; evenly spaced, without looking at scores."""


def compare(
    run: RunFolder, measured: Measured, sets: Sequence[str], prompts: Sequence[str], seeds: int
) -> dict[str, Any]:
    """The slider's data as JSON: prompts, folders of both sets (before, after), and picture pairs.

    sets: names of the two sets. seeds: pictures per prompt. Folders are relative to ComfyUI's output folder. A pair has
    its prompt (index), seed (from 1), file name, and scores as [title, before, after]. Empty if the run is outside
    ComfyUI's output folder, because /view serves no other files.
    """
    folders = [_under_output(run.image_path(name, 0).parent) for name in sets]
    if None in folders:
        return {}
    rows = evenly(len(prompts), _PROMPTS)
    both = [measured.of(name) for name in sets]
    titles = {name: role_of(name)[1] for name in list(both[0])[:2]}
    pairs = []
    for row, prompt in enumerate(rows):
        for seed in evenly(seeds, _SEEDS):
            at = prompt * seeds + seed
            scores = [[title, *(round(float(s[n][at]), 4) for s in both)] for n, title in titles.items()]
            pairs.append({"prompt": row, "seed": seed + 1, "name": run.image_path(sets[0], at).name, "scores": scores})
    return {"prompts": [prompts[p] for p in rows], "before": folders[0], "after": folders[1], "pairs": pairs}


def _under_output(folder: Path) -> str | None:
    import folder_paths

    try:
        return folder.resolve().relative_to(Path(folder_paths.get_output_directory()).resolve()).as_posix()
    except ValueError:
        return None
