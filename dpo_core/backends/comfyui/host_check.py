"""Check the ComfyUI version and that it has the internal names that this pack uses."""

from __future__ import annotations

import importlib
from typing import Any

from ...errors import UserError
from ...supported_hosts import NEWEST, OLDEST, numbers, too_old

__all__ = ["NEWEST", "OLDEST", "check", "memory_switches", "missing", "numbers", "refusal", "version"]

_NEEDED = (
    "comfy.conds:CONDRegular",
    "comfy.ldm.modules.attention:attention_pytorch",
    "comfy.model_management:extra_reserved_memory",
    "comfy.model_management:free_memory",
    "comfy.model_management:get_free_memory",
    "comfy.model_management:get_total_memory",
    "comfy.model_management:intermediate_device",
    "comfy.model_management:load_models_gpu",
    "comfy.model_management:throw_exception_if_processing_interrupted",
    "comfy.model_patcher:ModelPatcher.clone",
    "comfy.model_patcher:ModelPatcher.remove_injections",
    "comfy.model_patcher:ModelPatcher.set_attachments",
    "comfy.model_patcher:ModelPatcher.set_injections",
    "comfy.model_sampling:CONST",
    "comfy.model_sampling:COSMOS_RFLOW",
    "comfy.model_sampling:EPS",
    "comfy.model_sampling:V_PREDICTION",
    "comfy.patcher_extension:PatcherInjection",
    "comfy.sample:sample",
    "comfy.sampler_helpers:convert_cond",
    "comfy.samplers:CFGGuider.predict_noise",
    "comfy.samplers:KSampler.SAMPLERS",
    "comfy.samplers:KSampler.SCHEDULERS",
    "comfy.samplers:encode_model_conds",
    "comfy.samplers:sampler_object",
    "comfy.sd:VAE.decode",
    "comfy.utils:ProgressBar",
    "comfy.utils:unet_to_diffusers",
    "latent_preview:get_previewer",
)


def version() -> str:
    """The version of this ComfyUI, such as "0.33.0"; "unknown" if it does not tell."""
    try:
        return str(importlib.import_module("comfyui_version").__version__)
    except (ImportError, AttributeError):
        return "unknown"


def missing() -> list[str]:
    """Names of `_NEEDED` that this host lacks, as "module:name"."""
    return [name for name in _NEEDED if not _exists(name)]


def _exists(name: str) -> bool:
    module, _, path = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
    except ImportError:
        return False
    for part in path.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True


def memory_switches() -> dict[str, bool]:
    """Command-line switches that turn dynamic VRAM off, and whether this ComfyUI was started with them.

    {} when the host has no dynamic VRAM. Source: comfy.cli_args.enables_dynamic_vram of 0.33.
    """
    given = importlib.import_module("comfy.cli_args").args
    if not hasattr(given, "disable_dynamic_vram"):
        return {}
    names = ("disable_dynamic_vram", "highvram", "gpu_only", "novram", "cpu")
    return {"--" + name.replace("_", "-"): bool(getattr(given, name)) for name in names if hasattr(given, name)}


def refusal() -> str | None:
    """One line with the reason why this host cannot be used, and the remedy; None if it can."""
    this = version()
    if why := too_old(this):
        return why
    if gone := missing():
        return (
            f"DreamBooth DPO was tested on ComfyUI {OLDEST} to {NEWEST}, and this one ({this}) has no "
            f"{', '.join(gone)}: update DreamBooth DPO, or use a ComfyUI of these versions."
        )
    return None


_checked = False


def check() -> None:
    """Raises UserError when this host cannot be used (see `refusal`); a host that passed is not checked again."""
    global _checked
    if not _checked and (why := refusal()):
        raise UserError(why)
    _checked = True
