"""ComfyUI backend: the engine on ComfyUI's MODEL, CLIP and VAE. The only part of dpo_core that imports comfy."""

from __future__ import annotations

from .classes import model_family
from .diffusers_layers import export_of, export_of_lora
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
from .lora_check import LoraCheck, check_lora
from .lora_entries import check_lora_file, with_lora_file
from .model import BATCH_INVARIANT, ComfyTextToImage
from .residents import ResidentEmbedder

__all__ = [
    "BATCH_INVARIANT",
    "ComfyTextToImage",
    "LiveAdapter",
    "LoraCheck",
    "ResidentEmbedder",
    "adapter_of_lora",
    "check_lora",
    "check_lora_file",
    "diffusers_names",
    "export_of",
    "export_of_lora",
    "live_adapter",
    "lora_prefixes",
    "model_family",
    "prefixes_in",
    "with_live_adapter",
    "with_lora_file",
    "without_live_adapter",
]
