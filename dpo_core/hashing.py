"""Hashes of weights: one changed value anywhere gives another hash, on every device and for any number of threads."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

HEAD = 4096
_CPU_CHUNK, _GPU_CHUNK = 2**15, 2**24
"""64-bit words at once: on a CPU what its cache holds, temporaries included."""


def update_with_tensor(digest: Any, tensor: torch.Tensor) -> None:
    """Feed a hashlib object with a tensor's bytes as 32-bit integers: the first 4096 as they are, and the sum of all,
    modulo 2^64.

    One changed value always changes the sum; sums of integers, unlike those of floats, do not depend on their order.
    Every byte is read once, on the tensor's own device: `python -m dreambooth_dpo.benchmarks.hashing` measures the
    seconds.
    """
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    words = F.pad(data, (0, -len(data) % 4)) if len(data) % 4 else data
    digest.update(words[: 4 * HEAD].cpu().numpy().tobytes())
    pairs = words if len(words) % 8 == 0 else F.pad(words, (0, 4))
    total = torch.zeros((), dtype=torch.int64, device=data.device)
    chunk = _CPU_CHUNK if data.device.type == "cpu" else _GPU_CHUNK
    for both in pairs.view(torch.int64).split(
        chunk
    ):  # sums of 64-bit integers are quick, those of narrower ones are not
        total += (both >> 32).sum() + ((both << 32) >> 32).sum()
    digest.update(total.cpu().numpy().tobytes())
