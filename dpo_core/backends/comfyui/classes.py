"""What is known of ComfyUI's model classes by name: pictures as videos of one frame, and classes that do not train."""

from __future__ import annotations

from typing import Any

from ...errors import UserError
from ...families import Family, family_of
from .prediction import kind_of

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


FAMILY = "dreambooth_dpo_family"
"""Attribute of a model's configuration that names its family, where its class is no class of comfy.supported_models."""


def model_family(patcher: Any) -> Family:
    """The family of a MODEL. Raises UserError for a kind of prediction that cannot be trained."""
    return family_of_model(patcher.model, kind_of(patcher.get_model_object("model_sampling")))


def family_of_model(model: Any, kind: str) -> Family:
    """The family of a model (comfy's BaseModel). kind: its prediction, for classes not in families.json."""
    config = model.model_config
    # Not getattr: the host's configurations answer any name.
    return family_of(vars(config).get(FAMILY, type(config).__name__), kind, config.unet_config)
