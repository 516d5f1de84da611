"""Hashes of weights: any changed value changes the hash, on every device and for any number of threads."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

HEAD = 4096
_CPU_CHUNK, _GPU_CHUNK = 2**15, 2**24
"""64-bit words processed at a time; on a CPU, as many as fit in its cache with temporaries."""


def update_with_tensor(digest: Any, tensor: torch.Tensor) -> None:
    """Update a hashlib object with a tensor's bytes as 32-bit words: the first 4096, then the sum of all modulo 2^64.

    One changed value always changes the sum, and sums of integers, unlike those of floats, do not depend on their
    order. Every byte is read once, on the tensor's own device: `python -m dreambooth_dpo.benchmarks.hashing` measures
    the seconds.
    """
    if type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__:
        tensor = tensor.as_subclass(torch.Tensor)  # GGUF's tensors have another shape than their data
    data = tensor.detach().contiguous().flatten().view(torch.uint8)
    words = F.pad(data, (0, -len(data) % 4)) if len(data) % 4 else data
    digest.update(words[: 4 * HEAD].cpu().numpy().tobytes())
    pairs = words if len(words) % 8 == 0 else F.pad(words, (0, 4))
    total = torch.zeros((), dtype=torch.int64, device=data.device)
    chunk = _CPU_CHUNK if data.device.type == "cpu" else _GPU_CHUNK
    # Sums of 64-bit integers are fast, those of narrower ones are not.
    for both in pairs.view(torch.int64).split(chunk):
        total += (both >> 32).sum() + ((both << 32) >> 32).sum()
    digest.update(total.cpu().numpy().tobytes())
