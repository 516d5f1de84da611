"""Fingerprint of a MODEL, CLIP and VAE: equal for equal weights, patches and settings, on any device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from ...hashing import update_with_tensor
from . import prediction
from .live import KEY, live_adapter
from .patches import described, described_patches

CLIPS_OWN = {"manual_cast_dtype": torch.float32}
"""Replaced objects that 0.33 sets on every CLIP."""


def fingerprint(model: Any, clip: Any = None, vae: Any = None) -> str:
    """Fingerprint (16 hex digits) of a MODEL and, if given, its CLIP and VAE.

    It depends on every weight in full (see hashing.py), the patches of weights, the sampling type, a live adapter,
    CLIP's skipped layers, and what else changes a MODEL's pictures without being a weight: its options, replaced
    objects, injections and wrappers, and the tokenizer's options (patches.py).
    """
    sampling = model.get_model_object("model_sampling")
    digest = hashlib.sha256(prediction.type_name(sampling).encode())
    _digest(digest, "sigmas", [sampling.sigmas, getattr(sampling, "multiplier", None)])
    if (scale := float(getattr(sampling, "noise_scale", 1.0))) != 1.0:
        _digest(digest, "noise_scale", scale)
    _weights(digest, model)
    _digest_patches(digest, model)
    if (live := live_adapter(model)) is not None:
        digest.update(live.fingerprint.encode())
    if clip is not None:
        _digest_clip(digest, clip)
    if vae is not None:
        _weights(digest, vae.patcher)
    return digest.hexdigest()[:16]


def fingerprint_of_clip(clip: Any) -> str:
    """Fingerprint (16 hex digits) of a CLIP alone, of the same things."""
    digest = hashlib.sha256()
    _digest_clip(digest, clip)
    return digest.hexdigest()[:16]


def _digest_clip(digest: Any, clip: Any) -> None:
    _weights(digest, clip.patcher)
    _digest(digest, "layer", getattr(clip, "layer_idx", None))
    _digest_patches(digest, clip.patcher, CLIPS_OWN)
    if options := getattr(clip, "tokenizer_options", None):
        digest.update(f"tokenizer_options={described(options)}".encode())


def _weights(digest: Any, patcher: Any) -> None:
    for name, weight in sorted(_tensors(patcher.model).items()):
        # Skip the MODEL's noise schedule: it is that of the clone that was loaded last.
        if not name.startswith("model_sampling."):
            # The weights of a loaded MODEL may be patched; the originals are in the backup.
            _digest(digest, name, patcher.backup[name].weight if name in patcher.backup else weight)
    for name, patches in sorted(patcher.patches.items()):
        _digest(digest, name, patches)


def _tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All weights by name, as in the state dict.

    Some loaders (GGUF) answer state_dict() with tensors without data, of which nothing can be read.
    """
    tensors = model.state_dict()
    if any(tensor.is_meta for tensor in tensors.values()):
        return {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return tensors


def _digest_patches(digest: Any, patcher: Any, usual: Mapping[str, Any] | None = None) -> None:
    """Add what changes pictures beside weights; nothing for a MODEL without it, so that earlier sets are found."""
    if text := described_patches(patcher, KEY, usual):
        digest.update(f"patches={text}".encode())


def _digest(digest: Any, name: str, value: Any) -> None:
    """Add a tensor, number, text, or nested lists of these to the hash; a weight adapter adds its weights."""
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
