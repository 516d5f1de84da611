"""ComfyUI backend: the engine on ComfyUI's MODEL, CLIP and VAE. The only part of dpo_core that imports comfy."""

from __future__ import annotations

from .live import (
    LiveAdapter,
    adapter_of_lora,
    diffusers_names,
    live_adapter,
    lora_prefixes,
    prefixes_in,
    with_live_adapter,
    without_live_adapter,
)
from .model import BATCH_INVARIANT, ComfyTextToImage
from .residents import ResidentEmbedder

__all__ = [
    "BATCH_INVARIANT",
    "ComfyTextToImage",
    "LiveAdapter",
    "ResidentEmbedder",
    "adapter_of_lora",
    "diffusers_names",
    "live_adapter",
    "lora_prefixes",
    "prefixes_in",
    "with_live_adapter",
    "without_live_adapter",
]
