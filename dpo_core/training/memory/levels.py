"""Memory levels of training: what a step gives up to fit, and what is tried next where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from ...errors import UserError
from ...settings import TrainSettings
from .checkpointing import checkpointed_blocks, gradient_checkpointing
from .frozen_layers import lean

LEVELS = ("fast", "checkpointing", "low")
"""From quick to small: nothing recomputed; each block recomputed in backward; each transformer layer, and one pair
after another. The gradients of all are the same but for rounding."""


def first_level(settings: TrainSettings) -> str:
    """Where training begins: the setting's own level, or the quickest for auto."""
    return LEVELS[0] if settings.memory == "auto" else settings.memory


def next_level(settings: TrainSettings, level: str, denoiser: nn.Module) -> str | None:
    """What is tried where `level` does not fit into memory; None where nothing is left, or the user has chosen the
    level.

    A compiled denoiser has no other level: see TrainSettings. Where no block is known by name, one pair after another
    is all that is left.
    """
    if settings.memory != "auto" or settings.compile or level == LEVELS[-1]:
        return None
    return LEVELS[LEVELS.index(level) + 1] if _has_blocks(denoiser) else LEVELS[-1]


def _has_blocks(denoiser: nn.Module) -> bool:
    try:
        return bool(checkpointed_blocks(denoiser))
    except UserError:
        return False


@contextmanager
def at_level(denoiser: nn.Module, level: str, compiled: bool = False) -> Iterator[None]:
    """Inside, the denoiser's backward recomputes what the level says; unless it is `compiled`, it keeps no more than it
    needs (frozen_layers.py).

    Raises UserError for the level checkpointing where the denoiser has no blocks known by name.
    """
    with nullcontext() if compiled else lean(denoiser):
        if level == "fast" or (level == "low" and not _has_blocks(denoiser)):
            yield
            return
        with gradient_checkpointing(denoiser, layers=level == "low"):
            yield
