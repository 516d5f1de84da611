"""Trains the toybox UNet and its text encoder together, and saves them as a StableDiffusionPipeline folder."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ..captions import CONTEXT_LENGTH, VOCABULARY, build_tokenizer
from .data import captions_for, cosine_with_warmup, scenes_and_images, to_model_range


def build_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder():
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT_LENGTH,
            projection_dim=128,
            pad_token_id=0,
            bos_token_id=2,
            eos_token_id=len(VOCABULARY) - 1,
        )
    )


def build_scheduler():
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=2
    )


class Ema:
    """Exponential moving average of the weights; this average is saved."""

    def __init__(self, modules: list[torch.nn.Module], decay: float) -> None:
        self.decay, self.live = decay, modules
        self.mean = [copy.deepcopy(m).requires_grad_(False) for m in modules]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        for mean, live in zip(self.mean, self.live, strict=True):
            torch._foreach_lerp_(list(mean.parameters()), list(live.parameters()), 1 - decay)


@torch.no_grad()
def encode_latents(vae, pixels: torch.Tensor, device: str) -> torch.Tensor:
    """Latents float32 [n, 4, 16, 16] of images uint8 [n, 3, 64, 64]."""
    parts = [vae.encode(to_model_range(p).to(device)).latents.float().cpu() for p in pixels.split(64)]
    return torch.cat(parts)


def _draw_timesteps(count: int) -> torch.Tensor:
    """Half uniform, half from 300..980, where background and colours are determined."""
    wide = torch.randint(0, 1000, (count,))
    return torch.where(torch.rand(count) < 0.5, wide, torch.randint(300, 980, (count,)))


def train_unet(
    out: Path,
    vae_folder: Path,
    steps: int,
    device: str,
    seed: int,
    log,
    batch: int = 24,
    pictures: int = 24000,
    lr: float = 1.2e-3,
) -> dict:
    """Joint training of UNet and text encoder on (latent, caption) pairs; saves the EMA weights every 500 steps."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = AutoencoderTiny.from_pretrained(vae_folder, dtype=torch.float32).to(device)
    scenes, pixels = scenes_and_images(pictures, seed + 1)
    latents = encode_latents(vae, pixels, device)
    log(f"latents {tuple(latents.shape)} mean {latents.mean():.3f} std {latents.std():.3f}")
    del pixels
    unet, text = build_unet().to(device), build_text_encoder().to(device)
    parameters = [*unet.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine_with_warmup(s, steps))
    ema, tokenizer = Ema([unet, text], 0.998), build_tokenizer()
    alphas = build_scheduler().alphas_cumprod
    running = 0.0
    for step in range(steps):
        pick = rng.integers(0, len(scenes), batch)
        x0 = latents[torch.from_numpy(pick)]
        said = ["" if rng.random() < 0.1 else c for c in captions_for([scenes[i] for i in pick], rng)]
        tokens = tokenizer(said, padding="max_length", max_length=CONTEXT_LENGTH, return_tensors="pt").input_ids
        t, noise = _draw_timesteps(batch), torch.randn_like(x0)
        a = alphas[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * x0 + (1 - a).sqrt() * noise
        hidden = text(tokens.to(device)).last_hidden_state
        predicted = unet(noisy.to(device), t.to(device), hidden).sample
        loss = F.mse_loss(predicted, noise.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        ema.update(step)
        running = loss.item() if step == 0 else 0.99 * running + 0.01 * loss.item()
        if step % 100 == 0:
            log(f"unet step {step}/{steps} loss {running:.4f}")
        if step % 500 == 499:
            save_pipeline(out, vae, *ema.mean)
    save_pipeline(out, vae, *ema.mean)
    return {"loss": running}


def save_pipeline(out: Path, vae, unet, text) -> None:
    """Write a diffusers StableDiffusionPipeline folder in fp16 safetensors."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        vae=copy.deepcopy(vae).cpu(),
        text_encoder=copy.deepcopy(text).cpu(),
        tokenizer=build_tokenizer(),
        unet=copy.deepcopy(unet).cpu(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(out, safe_serialization=True)
