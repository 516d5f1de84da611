"""How the host names layers in LoRA files, and what a LoRA changes when it loads one. Used through `host`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from .host_models import with_lora

_ROOT, _WEIGHT = "diffusion_model.", ".weight"


class Place(NamedTuple):
    """Where the host finds a diffusers layer in its own model.

    layer: native name. rows: (first row, number of rows) of it, None: all. change: what else is done to the rows, such
    as an exchange of halves, None: nothing.
    """

    layer: str
    rows: tuple[int, int] | None = None
    change: Callable[[torch.Tensor], torch.Tensor] | None = None


def diffusers_places(model: Any, function: str) -> dict[str, Place]:
    """The host's own map of a family, {diffusers layer: place}; {} where the host has no such map.

    function: its name in comfy.utils, such as "flux_to_diffusers" (0.3.64: unet, mmdit, pixart, auraflow, flux; 0.33
    also z_image and krea2).
    """
    import comfy.utils

    make = getattr(comfy.utils, function, None)
    return {
        theirs.removesuffix(_WEIGHT): _place(native)
        for theirs, native in (make(model.model_config.unet_config) if make else {}).items()
        if theirs.endswith(_WEIGHT)
    }


def _place(native: Any) -> Place:
    """From the host's entry: a key, (key, (dimension, start, length)) or (key, the same or None, function)."""
    if isinstance(native, str):
        return Place(native.removesuffix(_WEIGHT))
    key, where, *change = native
    return Place(key.removesuffix(_WEIGHT), where and tuple(where[1:]), change[0] if change else None)


def lora_layers(model: Any) -> dict[str, str]:
    """Native layer of every key prefix that the host reads in a LoRA file for this model (comfy's BaseModel).

    Prefixes that stand for a part of a layer are left out.
    """
    import comfy.lora

    return {
        prefix: key.removeprefix(_ROOT).removesuffix(_WEIGHT)
        for prefix, key in comfy.lora.model_lora_keys_unet(model, {}).items()
        if isinstance(key, str) and key.startswith(_ROOT) and key.endswith(_WEIGHT)
    }


def weight_changes(
    patcher: Any, lora: Mapping[str, torch.Tensor], layers: Iterable[str]
) -> dict[str, torch.Tensor | None]:
    """What a LoRA adds to the weights of these layers when the host's own loader reads it, float32 on the CPU.

    Patches that the MODEL already carries are not in it. None: the host reads nothing of the LoRA for the layer.
    """
    import comfy.lora

    patched, changes = with_lora(patcher, lora), {}
    known = patcher.model_state_dict()
    with torch.inference_mode(False), torch.no_grad():
        for layer in layers:
            key = f"{_ROOT}{layer}{_WEIGHT}"
            added = patched.patches.get(key, [])[len(patcher.patches.get(key, [])) :]
            read = comfy.lora.calculate_weight(added, torch.zeros(known[key].shape), key) if added else None
            changes[layer] = read
    return changes
