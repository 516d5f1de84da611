"""Lists of equal blocks, and figures of a whole denoiser from runs with few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import nn

FEW = 2
"""Blocks of each list that stay in the first run; each list then gets one more in a run of its own."""


class Repeat(NamedTuple):
    """`count` equal blocks from place `first` of a list."""

    blocks: nn.ModuleList
    first: int
    count: int


def repeats(denoiser: nn.Module) -> list[Repeat]:
    """The longest run of equal blocks in each list, where it has more than FEW + 1.

    Equal: of one class, with tensors of the same names, shapes and types. Lists inside lists are left out: a peak
    inside one block of several does not grow with another block's list (the layers of SDXL's attention blocks).
    """
    found: list[Repeat] = []
    outer: list[str] = []
    for name, module in denoiser.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{o}.") for o in outer):
            continue
        first, count = _longest([_kind(block) for block in module])
        if count > FEW + 1:
            found.append(Repeat(module, first, count))
        outer.append(name)
    return found


def _longest(kinds: Sequence[object]) -> tuple[int, int]:
    """(first place, length) of the longest run of equal values; (0, 0) of none."""
    best, first = (0, 0), 0
    for place, kind in enumerate(kinds):
        if kind != kinds[first]:
            first = place
        best = max(best, (first, place + 1 - first), key=lambda run: run[1])
    return best


def _kind(block: nn.Module) -> tuple:
    tensors = [*block.named_parameters(), *block.named_buffers()]
    return (type(block), *((name, t.shape, t.dtype, type(t)) for name, t in tensors))


@contextmanager
def _with(counts: Mapping[Repeat, int]) -> Iterator[None]:
    """Inside, so many blocks of each run are in its list; on exit all are."""
    before = [(repeat.blocks, repeat.blocks._modules) for repeat in counts]
    try:
        for repeat, count in counts.items():
            blocks = list(repeat.blocks)
            kept = blocks[: repeat.first + count] + blocks[repeat.first + repeat.count :]
            repeat.blocks._modules = {str(place): block for place, block in enumerate(kept)}
        yield
    finally:
        for blocks, modules in before:
            blocks._modules = modules


def of_all_blocks(denoiser: nn.Module, figures: Callable[[], Sequence[int]]) -> list[int]:
    """`figures()` of the whole denoiser, by runs with few blocks in each list.

    Each figure must grow by the same amount for every further block of a list: figure(n) = figure(2) + (n - 2) *
    (figure(3) - figure(2)). With a list of 60 blocks this runs 5 blocks in place of 60. A denoiser runs as a whole
    where that takes less, and where its code needs all blocks.
    """
    lists = repeats(denoiser)
    blocks = (1 + len(lists)) * FEW * len(lists) + len(lists)  # each list adds a run
    if not lists or 2 * blocks > sum(repeat.count for repeat in lists):
        return list(figures())
    try:
        few = {repeat: FEW for repeat in lists}
        with _with(few):
            base = list(figures())
        totals = base.copy()
        for repeat in lists:
            with _with({**few, repeat: FEW + 1}):
                more = list(figures())
            totals = [t + (repeat.count - FEW) * (m - b) for t, m, b in zip(totals, more, base, strict=True)]
        return totals
    except (torch.OutOfMemoryError, KeyboardInterrupt):
        raise
    except (RuntimeError, IndexError, ValueError, AssertionError):
        return list(figures())
