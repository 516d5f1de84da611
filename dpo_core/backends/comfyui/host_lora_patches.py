"""The changes of weights that a MODEL or CLIP carries, as the host stores them. Used through `host`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .host_models import with_lora


class Patch(NamedTuple):
    """A change of a weight that a MODEL or CLIP carries, as the host stores it.

    strength: factor on the change. of_model: factor on the weight before it; below 1 where models were merged. rows:
    (dimension, start, length) of the part of the weight that changes, None: all. change: function on the change, or
    None. value: the host's adapter object or its tuple.
    """

    strength: float
    value: Any
    of_model: float
    rows: tuple[int, int, int] | None
    change: Callable[[torch.Tensor], torch.Tensor] | None

    @property
    def kind(self) -> str:
        """The host's word for it, such as "lora", "loha", "diff"; "merge" for a part of another model."""
        if hasattr(self.value, "weights"):
            return self.value.name
        named = isinstance(self.value, tuple) and len(self.value) == 2 and isinstance(self.value[0], str)
        return self.value[0] if named else "merge"

    @property
    def tensors(self) -> tuple:
        """What the adapter object holds; of a LoRA (up, down, alpha, mid, dora_scale, reshape). () for a tuple."""
        return tuple(getattr(self.value, "weights", ()))

    @property
    def keys(self) -> frozenset[str]:
        """The keys that the host has read in the file by the time that it made this adapter; a file's grow to all."""
        return frozenset(getattr(self.value, "loaded_keys", ()))


def weight_patches(patcher: Any) -> dict[str, list[Patch]]:
    """All changes that a MODEL carries, by the weight's key in its state dict, in the order of their application."""
    return {key: [Patch(*entry[:5]) for entry in entries] for key, entries in patcher.patches.items() if entries}


def lora_patches(patcher: Any, lora: Mapping[str, torch.Tensor]) -> dict[str, list[Patch]]:
    """The changes that the host's loader makes of a LoRA's tensors for this MODEL at strength 1, by weight's key."""
    before, after = weight_patches(patcher), weight_patches(with_lora(patcher, lora))
    added = {key: entries[len(before.get(key, ())) :] for key, entries in after.items()}
    return {key: entries for key, entries in added.items() if entries}


def change_of(patches: Sequence[Patch], key: str, shape: Sequence[int]) -> torch.Tensor:
    """What changes add to a weight of this shape by the host's own sums, float32 on the CPU."""
    import comfy.lora

    with torch.inference_mode(False), torch.no_grad():
        return comfy.lora.calculate_weight([tuple(p) for p in patches], torch.zeros(tuple(shape)), key)


def _of_a_lora(entry: tuple) -> bool:
    """Whether the host's entry is of a LoRA file, and not of another model that was merged in."""
    patch = Patch(*entry[:5])
    return patch.kind != "merge" and patch.of_model == 1


def _patcher_of(carrier: Any) -> Any:
    """The patcher of a CLIP, or the MODEL itself."""
    return getattr(carrier, "patcher", carrier)


def has_loras(carrier: Any) -> bool:
    """Whether a MODEL or CLIP carries changes of LoRA files, by the loader that patches weights."""
    return any(_of_a_lora(entry) for entries in _patcher_of(carrier).patches.values() for entry in entries)


def with_lora_strength(carrier: Any, factor: float) -> Any:
    """A clone of a MODEL or CLIP whose LoRAs act at `factor` times their strengths; merged models and the rest stay."""
    made = carrier.clone()
    patcher = _patcher_of(made)
    patcher.patches = {
        key: [(e[0] * factor, *e[1:]) if _of_a_lora(e) else e for e in entries]
        for key, entries in patcher.patches.items()
    }
    patcher.patches_uuid = uuid.uuid4()  # else the host takes the weights that it has loaded for those of this clone
    return made
