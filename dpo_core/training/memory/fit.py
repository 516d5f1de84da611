"""Chooses the memory level of a training before it starts, by its predicted memory; or refuses it in time."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ...errors import UserError
from ..trainer import Trainer
from .levels import LEVELS, next_level
from .predict import Predicted, predict_step

SAFE_SHARE = 0.9
"""Share (0..1) of the available memory that a predicted peak may take.

The rest is for what is not predicted: kernels' workspaces and the allocator's losses.
"""
WORTH = 50
"""On a CPU a step is predicted only where the weights take more than 1/50 of the available memory."""


def level_that_fits(peaks: Mapping[str, int], available: float, total: float, what: str) -> str:
    """The first level whose predicted peak fits into the available memory, else the last one.

    peaks: predicted peak of each level, from fastest to smallest. available, total: memory of the device for this
    training, and in all. All in bytes. what: the training, for the message. Raises UserError when the last level needs
    more than the device has.
    """
    for level, peak in peaks.items():
        if peak <= SAFE_SHARE * available:
            return level
    level, peak = list(peaks.items())[-1]
    if peak > total:
        raise UserError(
            f"predicted {peak / 1e9:.1f} GB at memory level {level} for {what}, but the device has {total / 1e9:.1f} "
            f"GB: training would run out of memory. {_remedy(level)} All candidates and scores are kept."
        )
    return level


def _remedy(level: str) -> str:
    smaller = "train on smaller pictures, take a lower rank or fewer adapter targets, or load the model's fp8 version"
    if level == LEVELS[-1]:
        return f"{smaller[0].upper()}{smaller[1:]}."
    return (
        f"Set memory to auto or {LEVELS[-1]}, train fewer pairs at once (batch_size; pairs_per_step in ComfyUI) and "
        f"raise accumulation by the same factor, {smaller}."
    )


def starting_level(trainer: Trainer) -> str:
    """The level at which the trainer should start: its own, or for memory `auto` on a GPU the first that fits.

    Call it inside `model.training()` and outside `adapter.attached()`. A prediction that fails is logged, and changes
    nothing. On a CPU the level stays; a predicted excess is logged. Raises UserError when training cannot fit.
    """
    model, settings = trainer.model, trainer.settings
    asked = getattr(model, "memory_for_training", None)
    memory = asked() if asked is not None and not settings.compile else None
    if memory is None:
        return trainer.level
    free, total = memory
    on_gpu = model.device.type != "cpu"
    weights = sum(p.nbytes for p in model.denoiser.parameters())
    if not on_gpu and weights * WORTH < free:
        return trainer.level
    try:
        peaks, available = peaks_down(trainer, free, all_levels=on_gpu)
    except Exception as error:  # a model's code may do anything on tensors without data
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logging.info("training memory cannot be predicted (%s); starting at level %r", said, trainer.level)
        return trainer.level
    predicted = ", ".join(f"{level} {peak / 1e9:.1f} GB" for level, peak in peaks.items())
    logging.info("predicted training memory: %s; available %.1f GB", predicted, available / 1e9)
    if on_gpu:
        return level_that_fits(peaks, available, total, what_trains(trainer))
    if peaks[trainer.level] > available:
        logging.warning(
            "training at memory level %r is predicted to need %.1f GB, but %.1f GB of main memory are available: the "
            "system may end the process. Choose a lower memory level, or close other programs.",
            trainer.level,
            peaks[trainer.level] / 1e9,
            available / 1e9,
        )
    return trainer.level


def peaks_down(trainer: Trainer, free: float, all_levels: bool) -> tuple[dict[str, int], float]:
    """Predicted peaks from the trainer's level down to the first that fits, and the memory available for training."""
    peaks: dict[str, int] = {}
    level: str | None = trainer.level
    available = 0.0
    while level is not None:
        found = predict_step(trainer, level)
        peaks[level] = found.peak
        available = free + held_now(trainer, found)
        if not all_levels or found.peak <= SAFE_SHARE * available:
            break
        level = next_level(trainer.settings, level, trainer.model.denoiser)
    return peaks, available


def held_now(trainer: Trainer, found: Predicted) -> int:
    """Bytes on the device that the prediction counts too: the adapter, and the weights where they are there."""
    kind = trainer.model.device.type
    weights = sum(p.nbytes for p in trainer.model.denoiser.parameters() if p.device.type == kind)
    return weights + found.adapter


def what_trains(trainer: Trainer) -> str:
    """The training in words: "2 pairs of latents of 64x64"."""
    pairs, (height, width) = trainer.settings.batch_size, trainer.data.shape[-2:]
    return f"{pairs} {'pair' if pairs == 1 else 'pairs'} of latents of {width}x{height}"
