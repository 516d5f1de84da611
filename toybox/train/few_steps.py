"""Distils the toybox's sampler into a LoRA that draws in few steps, as turbo and lightning LoRAs are used.

Knowledge distillation (arXiv 2101.02388, equation 4): the picture that many steps reach from a noise is the target of
few steps from the same noise, and gradients run through these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ...dpo_core.protocols import Cond
from ...dpo_core.settings import AdapterSettings, SamplingSettings
from ..captions import caption
from .data import cosine_with_warmup

TEACHER_STEPS = 12
STUDENT_STEPS = 2
RANK = 16


def _sampling(steps: int) -> SamplingSettings:
    return SamplingSettings(steps=steps, guidance=1.0, width=64, height=64)


def drawn(model, noise: torch.Tensor, cond: Cond, steps: int) -> torch.Tensor:
    """Latents float32 [n, 4, 16, 16] that the model's sampler reaches from `noise` in `steps` steps, with gradients."""
    model.scheduler.set_timesteps(steps)
    latents = noise * model.scheduler.init_noise_sigma
    for t in model.scheduler.timesteps:
        raw = model.predict(model.scheduler.scale_model_input(latents, t), t.expand(len(latents)), cond)
        latents = model.scheduler.step(raw, t, latents).prev_sample
    return latents


def _targets(model, captions: list[str], first: int, log) -> torch.Tensor:
    """The teacher's latents of each caption, from the noise of seed `first` + place."""
    parts = []
    for at in range(0, len(captions), 32):
        part = captions[at : at + 32]
        parts.append(model.sample(part, range(first + at, first + at + len(part)), _sampling(TEACHER_STEPS)))
        if at % 1024 == 0:
            log(f"few_steps target {at}/{len(captions)}")
    return torch.cat(parts)


def train_few_steps(
    pipeline: Path, out: Path, steps: int, device: str, seed: int, log, pictures: int = 4096, batch: int = 32
) -> dict[str, float]:
    """Train the LoRA on the base model and write it to `out`.

    Returns mean squared distances from the teacher's latents, on captions and noises apart from those of training:
    of the student, and of as few steps without it.
    """
    from ...dpo_core.backends.diffusers.model import DiffusersTextToImage, load_pipeline
    from ...dpo_core.training.adapter import Adapter, drawing
    from ...dpo_core.training.lora_files import lora_tensors, write_lora
    from ..world import random_scene

    rng = np.random.default_rng(seed)
    model = DiffusersTextToImage(load_pipeline(pipeline, device))
    captions = [caption(random_scene(rng), rng) for _ in range(pictures + 256)]
    targets = _targets(model, captions, seed, log)
    noise = torch.stack([torch.randn(targets.shape[1:], generator=_of(seed + i)) for i in range(len(captions))])
    adapter = Adapter(model.denoiser, AdapterSettings(rank=RANK, alpha=RANK, targets="all"), seed)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine_with_warmup(s, steps))
    for step in range(steps):
        pick = rng.integers(0, pictures, batch)
        with adapter.attached():
            made = drawn(
                model, noise[pick].to(device), model.encode_prompts([captions[i] for i in pick]), STUDENT_STEPS
            )
            loss = F.mse_loss(made, targets[pick].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            log(f"few_steps step {step}/{steps} loss {loss.item():.4f}")

    held = range(pictures, len(captions))

    def distance() -> float:
        made = model.sample(captions[pictures:], [seed + i for i in held], _sampling(STUDENT_STEPS))
        return float(F.mse_loss(made, targets[pictures:]))

    without = distance()
    with drawing(model, adapter):
        student = distance()
    out.parent.mkdir(parents=True, exist_ok=True)
    halves = {key: tensor.half() for key, tensor in lora_tensors(adapter).items()}
    write_lora(halves, out, RANK, RANK, {"dreambooth_dpo.about": f"toybox, {STUDENT_STEPS} sampler steps"})
    return {"few_steps, distance": student, "without it": without}


def _of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
