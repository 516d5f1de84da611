"""A MODEL whose weights stay in main memory while it computes on the device. Used through `host`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from ...errors import UserError

MARK = "dreambooth_dpo_main_memory"


def loaded(patcher: Any, load: Callable[[], None], stream: bool | None, stack: ExitStack) -> Any:
    """The MODEL after `load`, which loads it as a whole, or its clone in main memory; see `host.for_training`.

    `stack` unloads at its end what is no longer the given MODEL as it was loaded. Raises UserError as `load` does.
    """
    if not stream:
        try:
            load()
        except UserError as full:
            if stream is False:
                raise
            logging.warning("DreamBooth DPO: %s Training continues with the weights in main memory.", full)
        else:
            placed = elsewhere(patcher)
            # The level "stream" puts the weights back onto the device; where it could not, the host does at next use.
            stack.callback(lambda: unload(patcher) if elsewhere(patcher) != placed else None)
            return patcher
    held = loaded_to_main_memory(patcher)
    stack.callback(unload, held)
    return held


def loaded_to_main_memory(patcher: Any) -> Any:
    """A clone of the MODEL, loaded with its patches into main memory; all models leave the device.

    Its weights are the patched ones (a LoRA's change is computed on the CPU). Only the parts outside the denoiser
    (noise levels, latent format) are on the MODEL's device. `unload` puts the weights back as they were. Every host
    that is supported loads a MODEL onto the `load_device` that it says.
    """
    import comfy.model_management as management

    device = patcher.load_device
    # The MODEL too: the host takes one that is on the device for loaded, wherever it is asked for.
    management.free_memory(1e30, device)
    held = patcher.clone()
    held.load_device = torch.device("cpu")
    held.set_attachments(MARK, True)
    management.load_models_gpu([held], force_full_load=True)
    held.model_patches_to(device)
    for name, part in held.model.named_children():
        if name != "diffusion_model":
            part.to(device)
    return held


def in_main_memory(patcher: Any) -> bool:
    """Whether this is a MODEL of `loaded_to_main_memory`."""
    return bool(patcher.get_attachment(MARK))


def unload(patcher: Any) -> None:
    """Unload this MODEL, and no other, from the device and from the host's list of loaded models."""
    import comfy.model_management as management

    others = [loaded for loaded in management.current_loaded_models if loaded.model is not patcher]
    management.free_memory(1e30, patcher.load_device, keep_loaded=others)


def elsewhere(patcher: Any) -> bool:
    """Whether a weight of the denoiser is not on the device that the MODEL is loaded on."""
    device = torch.device(patcher.load_device).type
    return any(weight.device.type != device for weight in patcher.model.diffusion_model.parameters())
