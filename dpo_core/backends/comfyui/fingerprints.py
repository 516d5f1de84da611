"""What a run was made with, as a short hash: equal for equal weights, patches and settings, wherever they are loaded."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from ...hashing import update_with_tensor
from . import prediction
from .live import live_adapter


def fingerprint(model: Any, clip: Any = None, vae: Any = None) -> str:
    """16 hex digits of a MODEL and, where given, its CLIP and VAE.

    Every weight counts whole (see hashing.py); patches on them, the kind of sampling, a riding adapter and CLIP's
    skipped layers count.
    """
    sampling = model.get_model_object("model_sampling")
    digest = hashlib.sha256(prediction.type_name(sampling).encode())
    _digest(digest, "sigmas", [sampling.sigmas, getattr(sampling, "multiplier", None)])
    _weights(digest, model)
    if (riding := live_adapter(model)) is not None:
        digest.update(riding.fingerprint.encode())
    if clip is not None:
        _weights(digest, clip.patcher)
        _digest(digest, "layer", getattr(clip, "layer_idx", None))
    if vae is not None:
        _weights(digest, vae.patcher)
    return digest.hexdigest()[:16]


def _weights(digest: Any, patcher: Any) -> None:
    for name, weight in sorted(patcher.model.state_dict().items()):
        # The MODEL's own table is that of whichever clone was loaded last.
        if not name.startswith("model_sampling."):
            # A loaded MODEL may hold patched weights; the original is in the backup.
            _digest(digest, name, patcher.backup[name].weight if name in patcher.backup else weight)
    for name, patches in sorted(patcher.patches.items()):
        _digest(digest, name, patches)


def _digest(digest: Any, name: str, value: Any) -> None:
    """Feed a tensor, a number, a text, or what is built of them (a weight adapter by its weights)."""
    if isinstance(value, torch.Tensor):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        update_with_tensor(digest, value)
    elif isinstance(value, (list, tuple)):
        for i, part in enumerate(value):
            _digest(digest, f"{name}.{i}", part)
    elif hasattr(value, "weights"):
        _digest(digest, f"{name}.{type(value).__name__}", value.weights)
    elif value is None or isinstance(value, (str, int, float, bool)):
        digest.update(f"{name}={value!r}".encode())
    else:
        digest.update(f"{name}:{type(value).__name__}".encode())
