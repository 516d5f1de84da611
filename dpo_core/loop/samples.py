"""Sample grids: the same held-out prompts and seeds, drawn every `train.sample_every` steps while a round trains."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import UserError
from ..evaluation.held_out import HeldOutPlan
from ..protocols import TextToImage
from ..report.plots.grids import columns_grid, evenly
from ..run.files import atomic_path
from ..run.folder import RunFolder
from ..sampling.sets import pictures
from ..settings import LoopSettings

if TYPE_CHECKING:
    from PIL.Image import Image

SEEDS = 2
"""Most seeds of a prompt in a grid."""


def sample_path(run: RunFolder, round_index: int, steps: int) -> Path:
    """<run>/round_0/samples/step_000050.png: the grid after 50 steps of round 0."""
    return run.folder(f"round_{round_index}") / "samples" / f"step_{steps:06d}.png"


def grid_pictures(settings: LoopSettings, held_out: int) -> int:
    """Pictures in all sample grids of a run with this number of held-out prompts."""
    train, each = settings.train, min(SEEDS, settings.evaluation.seeds_per_prompt)
    grids = settings.rounds * (train.steps // train.sample_every) if train.sample_every else 0
    return grids * min(train.sample_prompts, held_out) * each


def sample_grid(
    run: RunFolder, round_index: int, steps: int, model: TextToImage, plan: HeldOutPlan, prompts: int
) -> Image | None:
    """Draw and write the grid after `steps` steps of a round: a row for each of `prompts` prompts, a column for a seed.

    The model draws with the adapter as it is. Prompts and seeds are those of `plan`. Nothing that a run's numbers
    depend on is read or changed, so a grid that cannot be drawn or written is left out with a warning, and is None.
    """
    rows = evenly(len(plan.prompts), prompts)
    try:
        return _drawn(sample_path(run, round_index, steps), model, plan, rows)
    except (UserError, torch.OutOfMemoryError) as error:
        logging.warning("no sample grid after step %d of round %d: %s", steps, round_index, error)
        return None
    finally:
        if callable(rest := getattr(model, "rest", None)):
            rest()  # text encoders and VAE, which training had put off the GPU


def _drawn(path: Path, model: TextToImage, plan: HeldOutPlan, rows: list[int]) -> Image:
    planned, each = plan.candidates(), plan.seeds_per_prompt
    seeds = min(SEEDS, each)
    chosen = [planned[row * each + seed] for seed in range(seeds) for row in rows]
    drawn = pictures(model, [c.prompt for c in chosen], [c.seed for c in chosen], plan.sampling)
    columns = [list(column) for column in drawn.reshape(seeds, len(rows), *drawn.shape[1:])]
    image = columns_grid(columns, [plan.prompts[row] for row in rows], [f"seed {s + 1}" for s in range(seeds)])
    with atomic_path(path) as beside:
        image.save(beside)
    return image
