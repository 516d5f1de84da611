"""LoRA files of any tool on a MODEL and its CLIP, one after the other, by the host's own loader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import UserError
from ...weights_file import damage
from . import host


def check_lora_file(model: Any, clip: Any, path: Path) -> bool:
    """Refuse a LoRA file that does not fit the MODEL and the CLIP as a whole; returns whether it changes the CLIP.

    The host passes over what it cannot read, so that a comparison would measure a part of a LoRA under its name. Raises
    UserError that names the file and the reason: a damaged file, nothing that matches, keys that match nothing, and
    weights of another shape.
    """
    if said := damage(path):
        raise UserError(said)
    tensors = host.read_lora_file(path)
    fit = host.lora_fit(model, clip, tensors)
    name = type(model.model).__name__
    if fit.misfits:
        layer, made, have = fit.misfits[0]
        reason = f"its change of {layer} has the shape {list(made)}, and the model's weight is {list(have)}"
        raise UserError(_refusal(path, f"{len(fit.misfits)} of its layers are of another size: {reason}", name))
    if not fit.denoiser and not fit.encoder:
        raise UserError(
            _refusal(path, f"none of its {len(tensors)} tensors matches (first: {next(iter(tensors), 'none')})", name)
        )
    if fit.unread:
        few = ", ".join(fit.unread[:3]) + (", ..." if len(fit.unread) > 3 else "")
        said = f"{len(fit.unread)} of its {len(tensors)} tensors match nothing in the MODEL and the CLIP: {few}"
        raise UserError(_refusal(path, said, name))
    return fit.encoder > 0


def _refusal(path: Path, reason: str, model: str) -> str:
    return (
        f"LoRA {path.name} does not fit this model ({model}): {reason}. ComfyUI would pass over them without an error. "
        f"Connect the MODEL and the CLIP that it was trained on, or leave it out. ({path})"
    )


def with_lora_file(model: Any, clip: Any, path: Path, strength: float) -> tuple[Any, Any]:
    """Clones of the MODEL and the CLIP with a LoRA file at a strength, as Load LoRA gives them."""
    return host.with_lora_on_both(model, clip, host.read_lora_file(path), strength)
