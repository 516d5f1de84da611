"""Memory levels of training: what each level recomputes, and which level follows on out-of-memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from ...errors import UserError
from ...settings import TrainSettings
from .checkpointing import checkpointed_blocks, gradient_checkpointing
from .frozen_layers import lean

LEVELS = ("fast", "checkpointing", "low")
"""From fastest to smallest. Gradients are the same at all levels up to rounding.

fast: nothing is recomputed. checkpointing: each block is recomputed in backward. low: each transformer layer is
recomputed, and pairs are processed one by one.
"""


def first_level(settings: TrainSettings) -> str:
    """The level that training starts at: the setting's own, or the fastest for `auto`."""
    return LEVELS[0] if settings.memory == "auto" else settings.memory


def next_level(settings: TrainSettings, level: str, denoiser: nn.Module) -> str | None:
    """The level to try when `level` does not fit into memory; None when there is none or the user chose the level.

    A compiled denoiser has no other level (see TrainSettings). When no block is known by name, the only other level is
    "low", which then only processes pairs one by one.
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
    """Inside, the denoiser's backward recomputes what the level says.

    Unless it is `compiled`, its frozen layers also keep fewer activations (frozen_layers.py). Raises UserError for the
    level "checkpointing" when the denoiser has no blocks known by name.
    """
    with nullcontext() if compiled else lean(denoiser):
        if level == "fast" or (level == "low" and not _has_blocks(denoiser)):
            yield
            return
        with gradient_checkpointing(denoiser, layers=level == "low"):
            yield
