"""What is known of ComfyUI's model classes by name: pictures as videos of one frame, and classes that do not train."""

from __future__ import annotations

from typing import Any

from ...errors import UserError

IMAGE_MODELS = ("QwenImage", "Krea2", "Anima", "CosmosT2IPredict2", "JoyImage", "WAN21_T2V")
"""Classes of comfy.supported_models that draw pictures as videos of one frame."""
REFUSED = {
    "HiDreamO1": "HiDreamO1 cannot be trained: its forward writes into tensors that gradients are computed from. "
    "Use another model.",
}
"""Classes of comfy.supported_models that cannot be trained, with the reason."""


def check_class(model: Any) -> None:
    """Raises UserError for a model (comfy's BaseModel) of a class that is known not to train."""
    if said := REFUSED.get(type(model.model_config).__name__):
        raise UserError(said)


def frame_of(model: Any, latent_format: Any) -> tuple[int, ...]:
    """(1,) for a model (comfy's BaseModel) whose latents have frames, of which a picture is one; () for others.

    Raises UserError for a model of videos.
    """
    if latent_format.latent_dimensions == 2:
        return ()
    name = type(model.model_config).__name__
    if latent_format.latent_dimensions == 3 and name in IMAGE_MODELS:
        return (1,)
    raise UserError(f"{name} is a video model, but candidates are pictures. Use a text-to-image model.")
