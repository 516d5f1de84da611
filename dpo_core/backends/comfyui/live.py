"""Live adapter: adapter weights carried by a MODEL and applied by hooks while ComfyUI has it loaded.

Also the names that LoRA files give the layers of a MODEL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from ...errors import UserError
from ...settings import AdapterSettings
from ...training.adapter import Adapter
from ...training.lora_files import load_tensors
from ...training.targets import TARGETS, target_layers
from . import host

KEY = "dreambooth_dpo"
_UP = ".lora_up.weight"


class LiveAdapter:
    """Adapter weights (`Adapter.state()`) with their settings, carried by a MODEL.

    ComfyUI calls `inject` after loading the MODEL and `eject` when it unloads it. Other MODELs that share the weights
    do not run with the hooks.
    """

    def __init__(self, state: Mapping[str, torch.Tensor], settings: AdapterSettings) -> None:
        self.state = {k: v.detach().cpu().clone() for k, v in state.items()}
        self.settings = settings
        digest = hashlib.sha256(settings.model_dump_json().encode())
        for name in sorted(self.state):
            digest.update(name.encode() + self.state[name].float().numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]
        self._hooks = ExitStack()
        self._owner: int | None = None
        self.called: set[str] = set()
        """Names of the int8 layers that were called; over several loads, as the host may load anew after sampling."""

    def inject(self, patcher: Any) -> None:
        """Build the adapter on the loaded MODEL and register its hooks."""
        self._hooks.close()
        with torch.inference_mode(False):
            adapter = Adapter(patcher.model.diffusion_model, self.settings, device=patcher.load_device)
            adapter.load(self.state)
        for name, layer in adapter.layers.items():
            if host.rounds_inputs(layer):
                self._hooks.callback(layer.register_forward_hook(lambda *_, name=name: self.called.add(name)).remove)
        self._hooks.enter_context(adapter.attached())
        self._hooks.enter_context(host.hooks_heard(adapter.layers.values()))
        self._owner = id(patcher)
        host.forget_compiled(patcher)

    def eject(self, patcher: Any) -> None:
        """Remove the hooks, if `patcher` is the MODEL that they were registered for."""
        # A clone of a loaded MODEL is marked as injected too and ejects when deleted, but does not own the hooks.
        if self._owner == id(patcher):
            self._hooks.close()
            self._owner = None
            host.forget_compiled(patcher)


def check_called(patcher: Any) -> None:
    """Check after a forward that the host has called every int8 layer with an adapter (0.33 fuses some of WAN's).

    Raises UserError where it has not: the adapter would act in part.
    """
    live = live_adapter(patcher)
    if live is None:
        return
    denoiser = patcher.model.diffusion_model
    names = {key.rpartition(".")[0] for key in live.state} - live.called
    passed = sorted(name for name in names if host.rounds_inputs(denoiser.get_submodule(name)))
    if passed:
        raise UserError(
            f"this ComfyUI ({host.version()}) does not call {len(passed)} int8 layers of the model one by one (first: "
            f"{passed[0]}), so the trained adapter acts in part only. Use an fp8 or 16-bit version of the model, or "
            "ComfyUI 0.40 or newer."
        )


def live_adapter(patcher: Any) -> LiveAdapter | None:
    """The live adapter of a MODEL; None if it has none."""
    return patcher.attachments.get(KEY)


def without_live_adapter(patcher: Any) -> Any:
    """A clone of the MODEL without its live adapter; other patches stay."""
    return host.without_injection(patcher, KEY)


def with_live_adapter(patcher: Any, adapter: LiveAdapter) -> Any:
    """A clone of the MODEL with this live adapter, which replaces an earlier one."""
    return host.with_injection(patcher, KEY, adapter.inject, adapter.eject, adapter)


def diffusers_names(model: Any) -> dict[str, str]:
    """Diffusers names of the layers of `model` (comfy's BaseModel), by their native names; {} if it is not a UNet."""
    return host.unet_names(model)


def lora_prefixes(model: Any, layers: Iterable[str]) -> dict[str, str]:
    """Key prefix of each layer of `model` (comfy's BaseModel) in a LoRA file, as kohya's tools name it.

    `lora_unet_` with underscores for points. The layer's name is diffusers' for SD 1 and 2 and the model's own for
    SDXL and all other architectures: kohya's sd-scripts know no other names, and ComfyUI and diffusers read them too.
    """
    config = model.model_config.unet_config
    return _kohya_names(layers, diffusers_names(model) if config.get("num_classes") is None else {})


def former_prefixes(model: Any, layers: Iterable[str]) -> dict[str, str]:
    """The prefixes of earlier versions: diffusers' names for SDXL, "diffusion_model." for transformers."""
    theirs = diffusers_names(model)
    return _kohya_names(layers, theirs) if theirs else {name: f"diffusion_model.{name}" for name in layers}


def _kohya_names(layers: Iterable[str], renamed: Mapping[str, str]) -> dict[str, str]:
    return {name: "lora_unet_" + renamed.get(name, name).replace(".", "_") for name in layers}


def prefixes_in(lora: Mapping[str, Any], model: Any, layers: Iterable[str]) -> dict[str, str]:
    """The prefixes under which a LoRA holds the layers: today's, or those of an earlier version."""
    layers = list(layers)
    former = former_prefixes(model, layers)
    held = {key.removesuffix(_UP) for key in lora if key.endswith(_UP)}
    return former if held == set(former.values()) else lora_prefixes(model, layers)


def adapter_of_lora(patcher: Any, lora: Mapping[str, torch.Tensor], called: str) -> LiveAdapter:
    """Live adapter from the tensors of a LoRA that the train step made.

    Rank and alpha are the LoRA's attributes, or read from the tensors. `called`: name of the LoRA in error messages.
    Raises UserError when the layers are not those of a train step on this MODEL.
    """
    ups = {key.removesuffix(_UP) for key in lora if key.endswith(_UP)}
    denoiser = patcher.model.diffusion_model
    for targets in TARGETS:
        prefixes = prefixes_in(lora, patcher.model, target_layers(denoiser, targets))
        if ups == set(prefixes.values()):
            first = next(iter(prefixes.values()))
            rank = getattr(lora, "rank", lora[f"{first}{_UP}"].shape[1])
            alpha = getattr(lora, "alpha", float(lora.get(f"{first}.alpha", rank)))
            settings = AdapterSettings(rank=rank, alpha=alpha, targets=targets)
            with torch.inference_mode(False):
                adapter = Adapter(denoiser, settings, device=torch.device("cpu"))
                load_tensors(adapter, lora, called, prefixes)
                return LiveAdapter(adapter.state(), settings)
    raise UserError(
        f"{called} does not fit this MODEL: its {len(ups)} layers match none of the targets attention, attention+ff "
        f"and all of {type(denoiser).__name__}. Connect the lora output of DPO LoRA Train Step, and the MODEL that "
        "went into it."
    )
