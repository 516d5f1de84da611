"""Describe what changes a MODEL's pictures beside its weights, as text that is equal for equal patches.

Nodes such as FreeU, RescaleCFG, PAG, HyperTile or a LoRA in bypass mode set functions and objects on a MODEL. A
function is described by its name and the values that it closes over, an object by its class and its numbers, texts and
tensors. State that a patch changes while it runs (flags, device caches, hooks) is left out.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...hashing import update_with_tensor

DEPTH = 20
"""How deep values are followed."""
_OWN = ("model_sampling", "latent_format")
"""Replaced objects that a fingerprint describes on its own, or that no picture depends on."""


def described_patches(patcher: Any, live: str, usual: Mapping[str, Any] | None = None) -> str:
    """The patches of a MODEL or of a CLIP's patcher; "" if it has none.

    live: the key of the live adapter, which is left out. usual: replaced objects that the host's own loader sets, left
    out too.
    """
    replaced = {k: v for k, v in getattr(patcher, "object_patches", {}).items() if k not in _OWN}
    parts = {
        "model_options": _without_empty(getattr(patcher, "model_options", {})),
        "object_patches": {k: v for k, v in replaced.items() if k not in (usual or {}) or v != usual[k]},
        "injections": {k: v for k, v in getattr(patcher, "injections", {}).items() if k != live and v},
        "wrappers": _without_empty(getattr(patcher, "wrappers", {})),
    }
    given = {name: value for name, value in parts.items() if value}
    return described(given) if given else ""


def patch_names(patcher: Any) -> list[str]:
    """Names of the nodes that set functions on a MODEL, as "FreeU_V2": the outermost name of each function."""
    names: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for part in value:
                look(part)
        elif callable(value) and hasattr(value, "__qualname__"):
            names.add(value.__qualname__.split(".")[0])

    look([getattr(patcher, "model_options", {}), getattr(patcher, "wrappers", {})])
    return sorted(names)


def _without_empty(value: Any) -> Any:
    """Nested dicts without empty parts."""
    if not isinstance(value, dict):
        return value
    kept = {k: _without_empty(v) for k, v in value.items()}
    return {k: v for k, v in kept.items() if not (isinstance(v, (dict, list, tuple, set)) and not v)}


def described(value: Any, depth: int = DEPTH) -> str:
    """Text of a value: equal for equal values, in this process and in another."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, torch.dtype)):
        return repr(value)
    if depth == 0:
        return type(value).__qualname__
    if isinstance(value, torch.Tensor):
        digest = hashlib.sha256(f"{tuple(value.shape)}{value.dtype}".encode())
        update_with_tensor(digest, value)
        return f"tensor {digest.hexdigest()[:16]}"
    if isinstance(value, dict):
        # Caches by device or object come and go.
        plain = sorted((repr(k), v) for k, v in value.items() if isinstance(k, (str, int, float, bool, tuple)))
        return "{" + ", ".join(f"{k}: {described(v, depth - 1)}" for k, v in plain) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(described(v, depth - 1) for v in value) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(described(v, depth - 1) for v in value)) + "}"
    if isinstance(value, functools.partial):
        return f"partial {described([value.func, value.args, value.keywords], depth - 1)}"
    return _function(value, depth) if callable(value) and hasattr(value, "__qualname__") else _object(value, depth)


def _function(value: Any, depth: int) -> str:
    """A function or class by its name, what it closes over, its defaults, and the object that it is bound to."""
    name = f"{getattr(value, '__module__', '')}.{value.__qualname__}"
    cells = [_cell(c) for c in getattr(value, "__closure__", None) or ()]
    around = [c for c in cells if not isinstance(c, nn.Module)]
    given = [around, getattr(value, "__defaults__", None), getattr(value, "__kwdefaults__", None)]
    bound = getattr(value, "__self__", None)
    owner = "" if bound is None or isinstance(bound, (type, nn.Module)) else f" of {_object(bound, depth - 1)}"
    return f"{name}({described(given, depth - 1)}){owner}"


def _cell(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not set yet
        return None


def _object(value: Any, depth: int) -> str:
    """An object by its class and its numbers, texts, tensors and lists of these; a module by its class alone."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, nn.Module) or depth <= 0:
        return name
    if callable(inject := getattr(value, "inject", None)):  # the host's PatcherInjection
        return f"{name}({described(inject, depth - 1)})"
    if hasattr(value, "weights"):  # a weight adapter of the host
        return f"{name}({described(value.weights, depth - 1)})"
    held = {k: v for k, v in getattr(value, "__dict__", {}).items() if _lasting(v)}
    return f"{name}({described(held, depth - 1)})"


def _lasting(value: Any) -> bool:
    """Whether an object's value is likely a setting, and not a state of its run."""
    if isinstance(value, (list, tuple)):
        return all(_lasting(v) for v in value)
    if isinstance(value, bool) or value is None or (callable(value) and not hasattr(value, "weights")):
        return False
    return isinstance(value, (int, float, str, dict, torch.Tensor)) or hasattr(value, "weights")
