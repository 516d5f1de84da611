"""Pipelines to measure sampling on: the trained toybox, and larger ones with random weights, which cost as much as
trained ones.
"""

from __future__ import annotations

from ...dpo_core.backends.diffusers.random_models import SIDES, random_pipeline
from ...dpo_core.settings import SamplingSettings

MODELS = ("toybox", "medium", "sd15")


def pipeline(name: str, device: str = "cpu"):
    """A StableDiffusionPipeline by its name in MODELS, in float32 on `device`. Raises SystemExit for another name."""
    if name not in MODELS:
        raise SystemExit(
            f"no model {name!r}; models are {', '.join(MODELS)}. The diffusers backend does not sample from SDXL."
        )
    from ...toybox.run import toy_pipeline

    return toy_pipeline(device) if name == "toybox" else _random_pipeline(name, device)


def sampling_settings(name: str, **changes: object) -> SamplingSettings:
    """The toybox's own settings, or 16 steps at the model's size, with changes."""
    from ...toybox.defaults import TOY_SETTINGS

    if name == "toybox":
        return TOY_SETTINGS.sampling.model_copy(update=changes)
    return SamplingSettings(width=SIDES[name], height=SIDES[name], steps=16).model_copy(update=changes)


def _random_pipeline(name: str, device: str):
    from diffusers import StableDiffusionPipeline

    from ...dpo_core.backends.diffusers.quiet import quiet_libraries
    from ...toybox.captions import build_tokenizer
    from ...toybox.train.unet import build_scheduler

    quiet_libraries()
    found = random_pipeline(name, device)
    parts = {part: getattr(found, part) for part in ("unet", "vae", "text_encoder")}
    bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline(**parts, tokenizer=build_tokenizer(), scheduler=build_scheduler(), **bare)
    pipe.set_progress_bar_config(disable=True)
    return pipe
