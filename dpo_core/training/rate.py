"""The learning rate of a step."""

from __future__ import annotations

from ..settings import TrainSettings


def learning_rate(settings: TrainSettings, step: int) -> float:
    """AdamW's learning rate at a step 0..steps-1: linear warm-up, then constant or linear decay.

    The decay ends at learning_rate / steps at the last step. For 10 steps, warm-up 2 and rate 1: 0.5, 0.9, 0.8, ... 0.1
    with decay; 0.5, 1, 1, ... when constant.
    """
    rate = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_steps))
    if settings.schedule == "constant":
        return rate
    return min(rate, settings.learning_rate * (settings.steps - step) / settings.steps)
