"""Measures the peak memory of a piece of work, on the GPU or of the process."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import torch


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Restart the measurement of `peak_bytes`. Without a GPU and /proc the peak counts from the process's start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (file := Path("/proc/self/clear_refs")).exists():
        file.write_text("5")  # resets the peak to the current resident set


def peak_bytes(device: torch.device) -> int:
    """Highest memory since `reset_peak`, in bytes: allocated on the GPU, or the process's resident set.

    Where there is no /proc, the resident set's peak counts from the process's start.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
