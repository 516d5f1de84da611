"""Checkpoint files of random weights: names and shapes of a real one, written tensor by tensor, so that any size fits
into memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ..run.files import atomic_path


def random_tensor(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """float32 of this shape, by its name: weights keep the size of what they are given, norms are 1 and biases 0."""
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).expand(shape)
    if not shape:
        return torch.tensor(4.6)  # CLIP's logit scale
    if len(shape) == 1:
        return (torch.zeros if name.endswith("bias") else torch.ones)(shape)
    spread = 0.02 if "embedding" in name else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(spread)


def write_random_checkpoint(layout: Mapping[str, torch.Tensor], path: Path, seed: int = 0) -> None:
    """A float16 safetensors file of the names and shapes of `layout` (tensors on the meta device will do); equal seeds,
    equal files.

    No more than one tensor is in memory. Raises UserError when the disk is full.
    """
    generator = torch.Generator().manual_seed(seed)
    header, end = {}, 0
    for name, tensor in layout.items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as beside, beside.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in layout.items():
            file.write(random_tensor(name, tensor.shape, generator).half().contiguous().numpy().tobytes())
