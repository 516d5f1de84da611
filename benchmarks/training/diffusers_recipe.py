"""The peer: a training step of diffusers' example train_diffusion_dpo.py, reimplemented, on the same model, pairs and
LoRA.

Every step starts from images and token ids: encode images with the VAE and prompts with the text encoder, one noise and
time for both images of a pair, the UNet with a peft LoRA, the UNet again with the LoRA off and without gradient, the
mean of the log-sigmoids, AdamW. Reading and resizing files is left out on both sides.

In bf16 the weights of UNet, VAE and text encoder are cast before the LoRA is added, latents and noise are bf16, and
only the UNet runs under autocast. The LoRA and AdamW's moments are bf16 as well: peft gives the LoRA the dtype of its
layer, and the example casts it back to float32 only for fp16. The example for SDXL keeps its VAE in float32; here it is
cast as well, which is faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch.nn import functional as F

from ...dpo_core.backends.diffusers.random_models import encode_xl, unet_arguments
from ...dpo_core.settings import AdapterSettings, TrainSettings
from ...dpo_core.training.targets import target_layers
from .models import Subject

VAE_BATCH = 8
"""Images that the VAE encodes at once: the example's default."""


class DiffusersRecipe:
    """`pixels`: float32 [n, 6, H, W] in -1..1 on the CPU, winner's channels first; `ids`: int64 [n, tokens]."""

    def __init__(
        self,
        subject: Subject,
        adapter: AdapterSettings,
        settings: TrainSettings,
        pixels: torch.Tensor,
        ids: torch.Tensor,
    ):
        from diffusers import DDPMScheduler
        from peft import LoraConfig

        self.pipe, self.settings, self.pixels, self.ids = subject.pipe, settings, pixels, ids
        self.unet = subject.pipe.unet
        self.dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
            if part := getattr(subject.pipe, name, None):
                part.requires_grad_(False).to(dtype=self.dtype)
        names = list(target_layers(self.unet, adapter.targets))
        self.unet.add_adapter(
            LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, init_lora_weights="gaussian", target_modules=names)
        )
        self.parameters = [p for p in self.unet.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.noises = DDPMScheduler.from_config(subject.pipe.scheduler.config)
        self.device = subject.pipe.device

    def step(self, step: int) -> torch.Tensor:
        """One optimizer step; returns the loss, a scalar on the device."""
        picks = [(step * self.settings.batch_size + i) % len(self.pixels) for i in range(self.settings.batch_size)]
        noised, target, times, cond = self.batch(picks)
        policy = self.policy(noised, target, times, cond)
        reference = self.reference(noised, target, times, cond)
        loss = self.loss(policy, reference)
        self.backward(loss)
        self.optimize()
        return loss.detach()

    @torch.no_grad()
    def batch(self, picks: Sequence[int]) -> tuple:
        """Noised latents, target, times [2b] and UNet arguments of b pairs, from pixels and ids."""
        pair = self.pixels[picks].to(self.device, self.dtype)
        pictures = torch.cat(pair.chunk(2, 1))
        latents = torch.cat([self._encoded(part) for part in pictures.split(VAE_BATCH)])
        cond = self._conditioning(self.ids[picks].to(self.device))
        noise = torch.randn_like(latents).chunk(2)[0].repeat(2, 1, 1, 1)
        times = torch.randint(0, self.noises.config.num_train_timesteps, (len(picks),), device=self.device).repeat(2)
        noised = self.noises.add_noise(latents, noise, times)
        return noised, noise, times, {k: v.repeat(2, *[1] * (v.ndim - 1)) for k, v in cond.items()}

    def _encoded(self, pictures: torch.Tensor) -> torch.Tensor:
        found = self.pipe.vae.encode(pictures)
        latents = found.latents if hasattr(found, "latents") else found.latent_dist.sample()
        return latents * self.pipe.vae.config.scaling_factor

    def _conditioning(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        if hasattr(self.pipe, "text_encoder_2"):
            return encode_xl(self.pipe, ids)
        return {"encoder_hidden_states": self.pipe.text_encoder(ids)[0]}

    def policy(self, noised: torch.Tensor, target: torch.Tensor, times: torch.Tensor, cond: dict) -> torch.Tensor:
        """Mean squared errors [2b] of the UNet with the LoRA."""
        return self._errors(noised, target, times, cond)

    @torch.no_grad()
    def reference(self, noised: torch.Tensor, target: torch.Tensor, times: torch.Tensor, cond: dict) -> torch.Tensor:
        """The same with the LoRA off, without gradient."""
        self.unet.disable_adapters()
        found = self._errors(noised, target, times, cond)
        self.unet.enable_adapters()
        return found

    def _errors(self, noised: torch.Tensor, target: torch.Tensor, times: torch.Tensor, cond: dict) -> torch.Tensor:
        with self.autocast():
            raw = self.unet(noised, times, **unet_arguments(cond)).sample
        return F.mse_loss(raw.float(), target.float(), reduction="none").mean(dim=(1, 2, 3))

    def loss(self, policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        """The example's loss; its beta is half of ours. Before 2024 it took the mean inside the log-sigmoid."""
        (winner, loser), (winner_ref, loser_ref) = policy.chunk(2), reference.chunk(2)
        inside = -0.5 * self.settings.beta * ((winner - loser) - (winner_ref - loser_ref))
        return -F.logsigmoid(inside).mean()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def optimize(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def autocast(self):
        """Autocast to bf16, or no change."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == torch.bfloat16 else nullcontext()
