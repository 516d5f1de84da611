"""A saved LoRA file against the adapter that it should hold, by the host's own loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...training.lora_files import weight_change
from . import host
from .live import live_adapter, without_live_adapter

MOST = 16
"""Layers whose weight change is compared, evenly chosen; all are looked for."""
_UP = ".lora_up.weight"


@dataclass(frozen=True)
class LoraCheck:
    """layers: number of layers that should change. unread: names of those for which the host reads nothing in the file.
    worst: largest relative difference of a layer's weight change, of the layers that are read. rounding: see
    host.rounding_of_merge.
    """

    layers: int
    unread: tuple[str, ...]
    worst: float
    rounding: float | None


def check_lora(patcher: Any, saved: Mapping[str, torch.Tensor], lora: Mapping[str, torch.Tensor]) -> LoraCheck:
    """Load the tensors of a saved file onto a MODEL as its stock loader does, and compare the change of the weights.

    With the live adapter of the MODEL, if it carries one; else with `lora`, the tensors that the file was written from.
    """
    bare = without_live_adapter(patcher)
    wanted = _of_adapter(patcher) or _of_lora(bare.model, lora)
    found = host.weight_changes(bare, saved, wanted)
    unread = tuple(sorted(layer for layer, change in found.items() if change is None))
    read = sorted(layer for layer, change in found.items() if change is not None)
    with torch.no_grad():
        apart = [_apart(found[layer], wanted[layer]()) for layer in read[:: -(-len(read) // MOST) or 1]]
    rounding = host.rounding_of_merge(bare, saved) if read else None
    return LoraCheck(len(wanted), unread, max(apart, default=0.0), rounding)


def _apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.view_as(wanted) - wanted).norm() / wanted.norm().clamp(min=1e-12))


def _of_adapter(patcher: Any) -> dict[str, Callable[[], torch.Tensor]]:
    """The weight change of each layer by the MODEL's live adapter; {} without one."""
    live = live_adapter(patcher)
    if live is None:
        return {}
    state, scale = live.state, live.settings.alpha / live.settings.rank
    names = [key.removesuffix(".up") for key in state if key.endswith(".up")]
    return {n: (lambda n=n: weight_change(state[f"{n}.down"], state[f"{n}.up"], scale)) for n in names}


def _of_lora(model: Any, lora: Mapping[str, torch.Tensor]) -> dict[str, Callable[[], torch.Tensor]]:
    """The same by a LoRA of the kohya form; layers that the host does not know are left to `unread` under their key."""
    native, made = host.lora_layers(model), {}
    for key in (key.removesuffix(_UP) for key in lora if key.endswith(_UP)):
        down, up = lora[f"{key}.lora_down.weight"], lora[key + _UP]
        scale = float(lora.get(f"{key}.alpha", len(down))) / len(down)
        made[native.get(key, key)] = lambda d=down, u=up, s=scale: weight_change(d, u, s)
    return made
