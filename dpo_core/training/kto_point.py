"""KTO's reference point of an optimizer step that has several forwards: a pass without gradients before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..pairs.edits import UNPAIRED
from .memory.levels import PAIR_BY_PAIR
from .objectives import kto_improvement
from .reference_cache import Reference

if TYPE_CHECKING:
    from .trainer import Trainer


def step_point(trainer: Trainer, step: int) -> tuple[torch.Tensor | None, list[Reference]]:
    """KTO's z over all forwards of the step, and the reference's errors of each.

    (None, []) for other objectives, and when the step is a single forward, whose own errors give z.
    """
    settings, crew = trainer.settings, trainer.crew
    if settings.objective not in UNPAIRED or (
        settings.accumulation == 1 and trainer.level not in PAIR_BY_PAIR and crew.size == 1
    ):
        return None, []
    references: list[Reference] = []
    sums = crew.together(lambda: _improvement(trainer, step, references))
    crew.sum(sums)
    total, count = sums
    return (total / count.clamp(min=1)).clamp(min=0), references


def _improvement(trainer: Trainer, step: int, references: list[Reference]) -> list[torch.Tensor]:
    """Sum and count of KTO's improvements of this process' pairs; adds the reference's errors of each forward."""
    total, count = (torch.zeros((), device=trainer.model.device) for _ in range(2))
    for piece in trainer.forwards(step):
        references.append(trainer.reference(piece))
        with torch.no_grad():
            part_total, part_count = kto_improvement(trainer.errors(piece, references[-1])[0])
        total, count = total + part_total, count + part_count
    return [total, count]
