"""Write checkpoint files of random weights with the names and shapes of a real checkpoint.

Tensors are written one by one, so a file of any size needs little memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ..run.files import atomic_path


def random_tensor(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """A float32 tensor of this shape, initialised by its name.

    Weights preserve the scale of their inputs, norms are 1 and biases 0.
    """
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).expand(shape)
    if not shape:
        return torch.tensor(4.6)  # CLIP's logit scale
    if len(shape) == 1:
        return (torch.zeros if name.endswith("bias") else torch.ones)(shape)
    spread = 0.02 if "embedding" in name else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(spread)


def write_random_checkpoint(layout: Mapping[str, torch.Tensor], path: Path, seed: int = 0) -> None:
    """Write a float16 safetensors file with the names and shapes of `layout`; equal seeds give equal files.

    The tensors of `layout` may be on the meta device. Only one tensor is in memory at a time. Raises UserError when the
    file cannot be written (disk full).
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
