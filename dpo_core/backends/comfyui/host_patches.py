"""What rides on a MODEL (injections, hooks), and the names of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def without_injection(patcher: Any, key: str) -> Any:
    """A clone of the MODEL without what `with_injection` put on it under `key`; its other patches stay."""
    clone = patcher.clone()
    # A clone keeps what it was cloned from: what rode on all earlier ones would stay in memory.
    while clone.parent is not None and key in clone.parent.attachments and clone.parent.parent is not None:
        clone.parent = clone.parent.parent
    # A clone copies the flag "is injected" of a loaded model, but the hooks are the loaded model's.
    clone.is_injected = False
    clone.remove_injections(key)
    clone.attachments.pop(key, None)
    return clone


def with_injection(
    patcher: Any, key: str, inject: Callable[[Any], None], eject: Callable[[Any], None], attachment: object
) -> Any:
    """A clone of the MODEL: the host calls `inject(patcher)` when it has loaded it, `eject(patcher)` when it unloads
    it.
    """
    from comfy.patcher_extension import PatcherInjection

    clone = without_injection(patcher, key)
    clone.set_injections(key, [PatcherInjection(inject=inject, eject=eject)])
    clone.set_attachments(key, attachment)
    return clone


@contextmanager
def hooks_heard(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the host calls these layers, and so their hooks, where it would rather run a fused operator on their
    weights.

    Read in 0.40: layers have `comfy_force_forward` for it. Before, only int8 layers were passed over (0.33), with no
    way to ask.
    """
    asked = [module for module in modules if hasattr(type(module), "comfy_force_forward")]
    before = [vars(module).get("comfy_force_forward") for module in asked]
    try:
        for module in asked:
            module.comfy_force_forward = True
        yield
    finally:
        for module, value in zip(asked, before, strict=True):
            del module.comfy_force_forward
            if value is not None:
                module.comfy_force_forward = value


def unet_names(model: Any) -> dict[str, str]:
    """What diffusers calls the layers of a UNet (`model`: comfy's BaseModel), by their native names; {} where it is no
    UNet.
    """
    import comfy.utils

    keys = comfy.utils.unet_to_diffusers(model.model_config.unet_config)
    return {
        native.removesuffix(".weight"): theirs.removesuffix(".weight")
        for theirs, native in keys.items()
        if native.endswith(".weight")
    }
