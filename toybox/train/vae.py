"""Trains the toybox VAE (AutoencoderTiny, 4x down, 4 channels) on renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from .data import cosine_with_warmup, scenes_and_images, to_model_range


def build_vae():
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(2, 1, 1),
        latent_channels=4,
        upsampling_scaling_factor=2,
    )


def psnr(vae, pixels: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of encode-decode in dB; `pixels` uint8 [n, 3, 64, 64]."""
    with torch.no_grad():
        x = to_model_range(pixels)
        y = vae.decode(vae.encode(x).latents).sample.clamp(-1, 1)
    return float(10 * torch.log10(4 / F.mse_loss(y, x)))


def _loss(vae, x: torch.Tensor, train_encoder: bool, noise: float) -> torch.Tensor:
    with torch.set_grad_enabled(train_encoder):
        z = vae.encode(x).latents
    # Unit-variance latents suit the noise schedule; a little noise makes the decoder tolerate the sampler's errors.
    spread = (z.mean((0, 2, 3)) ** 2).mean() + ((z.std((0, 2, 3)) - 1) ** 2).mean()
    y = vae.decode(z + noise * torch.randn_like(z)).sample
    return F.mse_loss(y, x) + 0.1 * F.l1_loss(y, x) + 0.02 * spread


def train_vae(
    out: Path, steps: int, device: str, seed: int, log, start: Path | None = None, noise: float = 0.08
) -> dict:
    """Train on 32x32 crops and save a diffusers folder.

    With `start`, its encoder is kept frozen and only the decoder is trained.
    """
    from diffusers import AutoencoderTiny

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    _, pixels = scenes_and_images(6000, seed + 1)
    vae = AutoencoderTiny.from_pretrained(start, dtype=torch.float32) if start else build_vae()
    vae = vae.to(device, memory_format=torch.channels_last)
    learned = list(vae.decoder.parameters()) if start else list(vae.parameters())
    optimizer = torch.optim.AdamW(learned, lr=1e-3 if start else 2e-3, weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine_with_warmup(s, steps))
    for step in range(steps):
        top, left = rng.integers(0, 9, 2) * 4
        pick = torch.from_numpy(rng.integers(0, len(pixels), 16))
        x = to_model_range(pixels[pick, :, top : top + 32, left : left + 32]).to(
            device, memory_format=torch.channels_last
        )
        loss = _loss(vae, x, start is None, noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            log(f"vae step {step}/{steps} loss {loss.item():.5f}")
    vae = vae.to("cpu", memory_format=torch.contiguous_format).eval()
    quality = {"psnr_db": psnr(vae, scenes_and_images(64, seed + 2)[1])}
    vae.save_pretrained(out, safe_serialization=True)
    return quality
