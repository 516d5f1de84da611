"""Injections and hooks on a MODEL, and the diffusers names of its layers. Used through `host`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def without_injection(patcher: Any, key: str) -> Any:
    """A clone of the MODEL without the injection `key` of `with_injection`; other patches stay."""
    clone = patcher.clone()
    # A clone references its parent, so the injections of all earlier clones would stay in memory.
    while clone.parent is not None and key in clone.parent.attachments and clone.parent.parent is not None:
        clone.parent = clone.parent.parent
    # A clone of a loaded model copies its flag is_injected, but does not own its hooks.
    clone.is_injected = False
    clone.remove_injections(key)
    clone.attachments.pop(key, None)
    return clone


def with_injection(
    patcher: Any, key: str, inject: Callable[[Any], None], eject: Callable[[Any], None], attachment: object
) -> Any:
    """A clone of the MODEL with an injection, in place of an earlier one under `key`.

    The host calls `inject(patcher)` after loading the clone and `eject(patcher)` before unloading it. `attachment` is
    stored in the clone's attachments.
    """
    from comfy.patcher_extension import PatcherInjection

    clone = without_injection(patcher, key)
    clone.set_injections(key, [PatcherInjection(inject=inject, eject=eject)])
    clone.set_attachments(key, attachment)
    return clone


def forget_compiled(patcher: Any) -> None:
    """Have a MODEL that is compiled by torch.compile traced again, as its layers' hooks have changed.

    Dynamo does not check hooks: without this an adapter has no effect, or stays in force when it is gone. The host
    compiles by a wrapper ("torch.compile"), other packs by replaced objects.
    """
    wrapped = any("torch.compile" in by_key for by_key in patcher.wrappers.values())
    if wrapped or any(hasattr(value, "_orig_mod") for value in patcher.object_patches.values()):
        torch.compiler.reset()


@contextmanager
def hooks_heard(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, the host calls these layers, and so their hooks, instead of a fused operator on their weights.

    Since 0.40 layers have the attribute `comfy_force_forward` for it. Earlier hosts bypass only int8 layers (0.33), and
    cannot be told otherwise.
    """
    forced = [module for module in modules if hasattr(type(module), "comfy_force_forward")]
    before = [vars(module).get("comfy_force_forward") for module in forced]
    try:
        for module in forced:
            module.comfy_force_forward = True
        yield
    finally:
        for module, value in zip(forced, before, strict=True):
            del module.comfy_force_forward
            if value is not None:
                module.comfy_force_forward = value


def unet_names(model: Any) -> dict[str, str]:
    """Diffusers names of the layers of `model` (comfy's BaseModel), by their native names; {} if it is not a UNet."""
    import comfy.utils

    keys = comfy.utils.unet_to_diffusers(model.model_config.unet_config)
    return {
        native.removesuffix(".weight"): theirs.removesuffix(".weight")
        for theirs, native in keys.items()
        if native.endswith(".weight")
    }
