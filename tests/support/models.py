"""Tiny random-weight diffusers models for tests; equal seeds give equal weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from dreambooth_dpo.dpo_core.backends.diffusers.model import DiffusersTextToImage
from dreambooth_dpo.dpo_core.backends.diffusers.random_models import tiny_unet as tiny_unet
from dreambooth_dpo.dpo_core.settings import SamplingSettings

PredictionType = Literal["epsilon", "v_prediction"]
SIZE = 64  # pixels; the VAE divides by 4, so latents are [4, 16, 16]
SAMPLING = SamplingSettings(steps=3, guidance=3.0, width=SIZE, height=SIZE, batch_size=4, candidates_per_prompt=2)


def tiny_stable_diffusion(
    prediction_type: PredictionType = "epsilon", seed: int = 0, channels: tuple[int, int] = (32, 64)
):
    """A StableDiffusionPipeline of the toybox's parts with a tiny random UNet; 64 x 64 pixels, fp32."""
    from diffusers import StableDiffusionPipeline

    from dreambooth_dpo.toybox.captions import build_tokenizer
    from dreambooth_dpo.toybox.train.unet import build_scheduler, build_text_encoder
    from dreambooth_dpo.toybox.train.vae import build_vae

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae, text_encoder, unet = build_vae(), build_text_encoder(), tiny_unet(channels)
    scheduler = build_scheduler()
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(),
        unet=unet,
        scheduler=type(scheduler).from_config(scheduler.config, prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_pipeline(
    folder: Path, prediction_type: PredictionType = "epsilon", seed: int = 0, channels: tuple[int, int] = (32, 64)
) -> Path:
    """Write the tiny pipeline as a diffusers folder (fp32 safetensors) and return the folder."""
    tiny_stable_diffusion(prediction_type, seed, channels).save_pretrained(folder, safe_serialization=True)
    return Path(folder)


def tiny_text_to_image(
    prediction_type: PredictionType = "epsilon", seed: int = 0, precision: str = "fp32"
) -> DiffusersTextToImage:
    """The tiny pipeline behind the TextToImage protocol, on the CPU."""
    return DiffusersTextToImage(tiny_stable_diffusion(prediction_type, seed), precision)
