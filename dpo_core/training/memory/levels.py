"""Memory levels of training: what each level recomputes, and which level follows on out-of-memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from ...errors import UserError
from ...settings import TrainSettings
from .checkpointing import checkpointed_blocks, gradient_checkpointing
from .frozen_layers import lean
from .stream import Mover, mover_for, streamed

LEVELS = ("fast", "checkpointing", "low", "stream")
"""From fastest to smallest. Gradients are the same at all levels up to rounding.

fast: nothing is recomputed. checkpointing: each block is recomputed in backward. low: each transformer layer is
recomputed, and pairs are processed one by one. stream: as low, and the frozen weights of the blocks stay in main
memory and come to the device one block at a time (stream.py).
"""
PAIR_BY_PAIR = ("low", "stream")


def streams(settings: TrainSettings) -> bool | None:
    """Whether the weights are to be left in main memory when the model is loaded; None: where they do not fit.

    The argument of `TextToImage.training`.
    """
    return None if settings.memory == "auto" and not settings.compile else settings.memory == "stream"


def first_level(settings: TrainSettings, whole: bool = True) -> str:
    """The level that training starts at: the setting's own, or the fastest for `auto`.

    `whole`: whether the model's weights are on the device; else `auto` starts at "stream".
    """
    if settings.memory != "auto":
        return settings.memory
    return LEVELS[0] if whole else "stream"


def next_level(settings: TrainSettings, level: str, denoiser: nn.Module) -> str | None:
    """The level to try when `level` does not fit into memory; None when there is none or the user chose the level.

    A compiled denoiser has no other level (see TrainSettings). When no block is known by name, the only other level is
    "low", which then only processes pairs one by one.
    """
    if settings.memory != "auto" or settings.compile or level == LEVELS[-1]:
        return None
    if _has_blocks(denoiser):
        return LEVELS[LEVELS.index(level) + 1]
    return None if level == "low" else "low"


def _has_blocks(denoiser: nn.Module) -> bool:
    try:
        return bool(checkpointed_blocks(denoiser))
    except UserError:
        return False


@contextmanager
def at_level(denoiser: nn.Module, level: str, compiled: bool = False, mover: Mover | None = None) -> Iterator[None]:
    """Inside, the denoiser's backward recomputes what the level says.

    Unless it is `compiled`, its frozen layers also keep fewer activations (frozen_layers.py). `mover`: brings weights
    to the device at the level "stream"; None: to the device of the denoiser's first weight. Raises UserError for the
    levels "checkpointing" and "stream" when the denoiser has no blocks known by name.
    """
    with ExitStack() as stack:
        if not compiled:
            stack.enter_context(lean(denoiser))
        if level == "stream":
            stack.enter_context(streamed(denoiser, mover or mover_for(next(denoiser.parameters()).device)))
        if level in ("checkpointing", "stream") or (level == "low" and _has_blocks(denoiser)):
            stack.enter_context(gradient_checkpointing(denoiser, layers=level in PAIR_BY_PAIR))
        yield
