"""Structure of a denoiser: UNet or transformer, its repeated blocks, its layers."""

from __future__ import annotations

import torch
from torch import nn

UNET_PARTS = ("input_blocks", "down_blocks")
"""Names of a UNet's first blocks: ComfyUI's and diffusers'."""


def is_unet(denoiser: nn.Module) -> bool:
    """Whether a denoiser is a UNet, and no transformer."""
    return any(name in UNET_PARTS for name, _ in denoiser.named_children())


def numbered_blocks(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The outermost modules that stand in a list and have parts, by full name, as "layers.0"; {} if there are none."""
    blocks: dict[str, nn.Module] = {}
    for name, module in denoiser.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in blocks):
            continue
        blocks |= {f"{name}.{n}": part for n, part in module.named_children() if any(part.children())}
    return blocks


def is_layer(module: nn.Module) -> bool:
    """Whether a module is a linear or 2-d convolution layer: torch's, or one of the same name (quantized layers).

    Other modules with a 2-d weight, such as the gate of a mixture of experts, may give something else than one tensor.
    """
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim not in (2, 4):
        return False
    return isinstance(module, nn.Linear | nn.Conv2d) or type(module).__name__ in ("Linear", "Conv2d")


def weight_shape(weight: torch.Tensor) -> torch.Size:
    """Shape of a layer's weight; of one that bitsandbytes has packed to 4 bits, before."""
    return getattr(getattr(weight, "quant_state", None), "shape", weight.shape)
