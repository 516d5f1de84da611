"""How many pictures are drawn at once where free memory decides (sampling.batch_size 0)."""

from __future__ import annotations

from typing import Protocol

import torch

SHARE = 0.8
"""Of free memory that pictures may fill.

The rest is for what does not grow evenly with their number, and for gaps between blocks.
"""
UNMEASURED = 8
"""Fallback batch size when free memory is unknown or must not affect results: the default of sampling.batch_size."""


def fitting(free: float, each: float, most: int) -> int:
    """How many pictures of `each` bytes go into `free` bytes with a margin of 20 %: 1 to `most`.

    One is always tried.
    """
    return max(1, min(most, int(SHARE * free / each))) if each > 0 else most


class Meter(Protocol):
    """Tells what drawing takes. Unit: bytes."""

    def start(self) -> None:
        """From here on `taken` counts."""
        ...

    def taken(self) -> int:
        """The peak since `start`, above what lay there then."""
        ...

    def free(self) -> int:
        """What can still be allocated."""
        ...


class CudaMeter:
    """PyTorch's own figures of a CUDA device. Its peak statistics begin anew with `start`."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, 0

    def start(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)

    def taken(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) - self.before

    def free(self) -> int:
        """The driver's, and what the allocator holds without using it."""
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + unused


def meter_for(device: torch.device) -> Meter | None:
    """None where a peak cannot be read: in main memory it is told for the process's whole life alone."""
    return CudaMeter(device) if device.type == "cuda" else None
