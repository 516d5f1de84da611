"""Which layers of a denoiser get an adapter."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import nn

from ..errors import UserError
from .blocks import is_layer, is_unet, numbered_blocks

TARGETS = {
    "attention": r"(\.(to_q|to_k|to_v|to_out\.0|qkv)|attn\.proj)$",
    "attention+ff": (
        r"(\.(to_q|to_k|to_v|to_out\.0|qkv|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|linear[12])"
        r"|attn\.proj|mlp\.\w+)$"
    ),
    # input_blocks.0 of ComfyUI's UNets is the input convolution, which diffusers keeps outside its blocks: excluded.
    "all": r"^(?!input_blocks\.0\.).*(_blocks|_block)\.|^(blocks|layers)\.",
}
_NO_FEED_FORWARD = re.compile(r"(mod|ada_?ln|norm|embed)", re.IGNORECASE)
"""In names of a transformer's layers that are neither attention nor feed-forward."""


_REFERENCE_IMAGES = ("ref_image_refiner.", "image_index_embedding.")
"""Starts of names of layers that only a reference image uses, which candidates do not have."""


def target_layers(denoiser: nn.Module, targets: str) -> dict[str, nn.Module]:
    """Layers that get an adapter, by name: linear and 2-d convolution layers whose name matches `targets`.

    `targets`: "attention", "attention+ff" or "all". A transformer whose block names are not known is searched for
    numbered blocks (blocks.py). Raises UserError when no layer matches.
    """
    layers = {name: module for name, module in denoiser.named_modules() if is_layer(module)}
    found = _by_name(layers, targets) if is_unet(denoiser) else _of_transformer(denoiser, layers, targets)
    if not found:
        raise UserError(
            f"adapter targets {targets!r} match no layer of {type(denoiser).__name__}. Choose one of {sorted(TARGETS)}."
        )
    return {name: layers[name] for name in layers if name in found}


def _by_name(layers: Mapping[str, nn.Module], targets: str) -> set[str]:
    pattern = re.compile(TARGETS[targets])
    return {name for name in layers if pattern.search(name)}


def _of_transformer(denoiser: nn.Module, layers: Mapping[str, nn.Module], targets: str) -> set[str]:
    """Names of a transformer's layers: those in its blocks; of these attention, or all but modulation and norms."""
    blocks = tuple(f"{name}." for name in numbered_blocks(denoiser))
    inside = _by_name(layers, "all") or {name for name in layers if name.startswith(blocks)}
    inside = {name for name in inside if not name.startswith(_REFERENCE_IMAGES)}
    if targets == "attention":
        parts = {name for name in inside if any("attn" in p or "attention" in p for p in name.lower().split(".")[:-1])}
        return {name for name in parts if not _NO_FEED_FORWARD.search(name)} | (_by_name(layers, targets) & inside)
    return {name for name in inside if not _NO_FEED_FORWARD.search(name)} if targets == "attention+ff" else inside
