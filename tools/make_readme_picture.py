"""Makes the README's picture from a finished run: held-out prompts before and after, with the plane of both scores.

`python tools/make_readme_picture.py [RUN]` reads a run folder (default: runs/demo_0, that of `make demo`) and writes
docs/img/before_after.jpg. The prompts are evenly spaced over the list.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from dreambooth_dpo.dpo_core.report.numbers import read_evaluations
from dreambooth_dpo.dpo_core.report.pictures import grid_image, path_points
from dreambooth_dpo.dpo_core.report.plots.figure import figure_image
from dreambooth_dpo.dpo_core.report.plots.path import path_figure
from dreambooth_dpo.dpo_core.run.folder import RunFolder

ROOT = Path(__file__).parents[1]
PROMPTS, SEEDS, GAP, QUALITY = 6, 2, 24, 88


def beside(grid: Image.Image, plane: Image.Image) -> Image.Image:
    """Both on white, the plane as high as the grid at most and in the middle of its height."""
    scale = min(1.0, grid.height / plane.height)
    plane = plane.convert("RGB").resize((round(plane.width * scale), round(plane.height * scale)), Image.LANCZOS)
    whole = Image.new("RGB", (grid.width + GAP + plane.width, grid.height), "white")
    whole.paste(grid, (0, 0))
    whole.paste(plane, (grid.width + GAP, (grid.height - plane.height) // 2))
    return whole


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "runs" / "demo_0"
    with RunFolder(folder) as run:
        found = read_evaluations(run)
        if not found.shown:
            sys.exit(f"{folder} has no round after the start: nothing to show before and after.")
        grid, _ = grid_image(run, found, PROMPTS, SEEDS)
        plane = figure_image(path_figure(*path_points(run, found)))
    path = ROOT / "docs" / "img" / "before_after.jpg"
    beside(grid, plane).save(path, quality=QUALITY, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
