"""Pipelines to measure sampling on: the trained toybox, and larger ones of random weights, which cost what trained ones
do.
"""

from __future__ import annotations

from ...dpo_core.backends.diffusers.random_models import CLIP_L, VAE, unet
from ...dpo_core.settings import SamplingSettings
from ..training.models import RESOLUTIONS

MODELS = ("toybox", "medium", "sd15")


def pipeline(name: str, device: str = "cpu"):
    """A StableDiffusionPipeline by its name in MODELS, in float32 on `device`. Raises SystemExit for another name."""
    if name not in MODELS:
        raise SystemExit(
            f"model {name!r} is none of {', '.join(MODELS)}. The headless side draws with Stable Diffusion 1 and 2, not with SDXL."
        )
    from ...toybox.run import toy_pipeline

    return toy_pipeline(device) if name == "toybox" else _random_pipeline(name).to(device)


def sampling_settings(name: str, **changes: object) -> SamplingSettings:
    """The toybox's own settings, or 16 steps at the model's size, with changes."""
    from ...toybox.defaults import TOY_SETTINGS

    size = RESOLUTIONS[name]
    base = TOY_SETTINGS.sampling if name == "toybox" else SamplingSettings(width=size, height=size, steps=16)
    return base.model_copy(update=changes)


def _random_pipeline(name: str):
    import torch
    from diffusers import AutoencoderKL, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    from ...dpo_core.backends.diffusers.quiet import quiet_libraries
    from ...toybox.captions import build_tokenizer
    from ...toybox.train.unet import build_scheduler

    quiet_libraries()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = {
            "unet": unet(name),
            "vae": AutoencoderKL(**VAE),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**CLIP_L)),
        }
    bare = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = StableDiffusionPipeline(**parts, tokenizer=build_tokenizer(), scheduler=build_scheduler(), **bare)
    pipe.set_progress_bar_config(disable=True)
    return pipe
