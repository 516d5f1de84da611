"""How the host names layers in LoRA files, and what a LoRA changes when it loads one. Used through `host`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
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


class LoraFit(NamedTuple):
    """What the host reads of a LoRA for a MODEL and a CLIP.

    denoiser, encoder: number of weights changed in each. unread: keys that match nothing. misfits: (weight, shape that
    the LoRA is for, the weight's own) where they differ.
    """

    denoiser: int
    encoder: int
    unread: tuple[str, ...]
    misfits: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]


class _Heard(dict):
    """A LoRA's tensors by key; remembers which keys were asked for their tensor."""

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(tensors)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> torch.Tensor:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        if key in self:
            self.read.add(key)
        return super().get(key, default)


def lora_fit(patcher: Any, clip: Any, tensors: Mapping[str, torch.Tensor]) -> LoraFit:
    """Match a LoRA of any tool to a MODEL and a CLIP (or None) as the host's own loader does; changes nothing.

    The host itself only logs keys that match nothing, and passes over weights of another shape while it draws.
    """
    import comfy.lora
    import comfy.lora_convert

    places = comfy.lora.model_lora_keys_unet(patcher.model, {})
    weights = dict(patcher.model_state_dict())
    inside = set(weights)
    if clip is not None:
        places = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, places)
        weights |= clip.cond_stage_model.state_dict()
    with torch.inference_mode(False):
        heard = _Heard(comfy.lora_convert.convert_lora(dict(tensors)))
        patches = comfy.lora.load_lora(heard, places, log_missing=False)
    names = [key if isinstance(key, str) else key[0] for key in patches]
    changed = [name for name in names if name in weights]
    misfits = tuple(found for key, patch in patches.items() if (found := _misfit(key, patch, weights)))
    denoiser = sum(name in inside for name in changed)
    return LoraFit(denoiser, len(changed) - denoiser, tuple(k for k in heard if k not in heard.read), misfits)


def _misfit(key: Any, patch: Any, weights: Mapping[str, torch.Tensor]) -> tuple | None:
    """(weight, shape of a plain LoRA layer's change, shape of the weight or its part) if they hold unequal numbers."""
    name, part = (key, None) if isinstance(key, str) else (key[0], key[1] if len(key) > 1 else None)
    halves = getattr(patch, "weights", None)
    # A plain layer: (up, down, alpha, mid, ...); other kinds of adapters are left to the host.
    if type(patch).__name__ != "LoRAAdapter" or name not in weights or halves[3] is not None or any(halves[5:]):
        return None
    have = list(weights[name].shape)
    if part is not None:
        have[part[0]] = part[2]
    made = len(halves[0]), halves[1].flatten(1).shape[1]
    equal = have[0] == made[0] and torch.Size(have).numel() == made[0] * made[1]
    return None if equal else (name, made, tuple(have))


def read_lora_file(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, by the host's own reader."""
    import comfy.utils

    with torch.inference_mode(False):
        return comfy.utils.load_torch_file(str(path), safe_load=True)
