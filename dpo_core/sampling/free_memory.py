"""Number of pictures sampled at once when free memory decides (sampling.batch_size 0)."""

from __future__ import annotations

from typing import Protocol

import torch

SHARE = 0.8
"""Share (0..1) of free memory that pictures may take.

The rest is for memory that does not grow linearly with their number, and for fragmentation.
"""
FALLBACK_BATCH = 8
"""Fallback batch size when free memory is unknown or must not affect results: the default of sampling.batch_size."""


def pictures_that_fit(free: float, each: float, most: int) -> int:
    """Number of pictures of `each` bytes that fit into `free` bytes with a margin of 20 %: 1 to `most`.

    At least 1, even if it may not fit.
    """
    return max(1, min(most, int(SHARE * free / each))) if each > 0 else most


class Meter(Protocol):
    """Measures the memory that sampling takes, in bytes."""

    def start(self) -> None:
        """Start a measurement."""
        ...

    def taken(self) -> int:
        """Peak memory since `start`, above the memory allocated then."""
        ...

    def free(self) -> int:
        """Memory that can still be allocated."""
        ...


class CudaMeter:
    """Meter from PyTorch's statistics of a CUDA device; `start` resets the peak statistics."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.before = device, 0

    def start(self) -> None:
        torch.cuda.reset_peak_memory_stats(self.device)
        self.before = torch.cuda.memory_allocated(self.device)

    def taken(self) -> int:
        return torch.cuda.max_memory_allocated(self.device) - self.before

    def free(self) -> int:
        """Free memory of the driver plus memory that PyTorch's allocator has reserved but does not use."""
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + unused


def meter_for(device: torch.device) -> Meter | None:
    """The meter of a device; None when no peak can be measured.

    In main memory only the peak since the start of the process is known.
    """
    return CudaMeter(device) if device.type == "cuda" else None
