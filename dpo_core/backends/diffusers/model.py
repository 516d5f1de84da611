"""The TextToImage protocol, implemented on a diffusers StableDiffusionPipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from ...errors import UserError
from ...protocols import Cond
from ...sampling.picture_check import check_pixels
from ...settings import SamplingSettings
from .folder import check_model_folder, check_prediction_type, check_tokenizer, load_parts
from .identity import hash_weights
from .loras import merge_lora
from .quantized import is_quantized
from .residence import Resident
from .schedules import table_noised

_DECODE_PIXELS = 2**19
"""Pixels decoded at once: two pictures of 512 x 512.

A VAE decoder needs far more memory per picture than the denoiser.
"""
_DECODE_PIXELS_CPU = 2**15
"""Pixels decoded at once on a CPU, chosen for its caches.

On the toybox 1.6 times as fast as 32 pictures at once (channels last: 2.1 times).
"""


def load_pipeline(folder: str | Path, device: str = "cpu", lora: Path | None = None, lora_strength: float = 1.0):
    """Load a StableDiffusionPipeline folder (safetensors only) and merge the user's LoRA, if any, into its weights.

    Raises UserError when the folder is not such a pipeline, when a weight is missing, unexpected or does not fit, or
    when the LoRA is of another model.
    """
    from diffusers import StableDiffusionPipeline

    folder = Path(folder)
    check_model_folder(folder)
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            folder,
            **load_parts(folder),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    except UserError:
        raise
    except (OSError, ValueError, TypeError, RuntimeError, NotImplementedError, ImportError) as error:
        reason = " ".join(str(error).split())[:400]
        raise UserError(f"model folder {folder} cannot be loaded as a StableDiffusionPipeline: {reason}") from error
    check_tokenizer(pipe.tokenizer, pipe.text_encoder, folder)
    pipe.set_progress_bar_config(disable=True)
    if lora is not None:
        merge_lora(pipe, Path(lora), lora_strength)
    return pipe.to(device)


def sampler_of(scheduler):
    """DPM-Solver++ 2M on a scheduler's noise schedule. Raises UserError for a config that it cannot take."""
    from diffusers import DPMSolverMultistepScheduler

    try:
        return DPMSolverMultistepScheduler.from_config(scheduler.config)
    except (ValueError, NotImplementedError, ImportError, TypeError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"the scheduler {type(scheduler).__name__} of this model cannot be used: {reason}. Save "
            "the model with another scheduler, such as DDIMScheduler or DPMSolverMultistepScheduler."
        ) from error


class DiffusersTextToImage(Resident):
    """Sampling, prediction and decoding with a StableDiffusionPipeline; its weights are frozen.

    `precision`: "fp32", or "bf16" for autocast in `predict` and `sample`, with the denoiser's weights in bf16. Raises
    UserError for a prediction type other than epsilon and v_prediction.
    """

    resting = ("vae", "text_encoder")
    """Parts of the pipeline that are moved off the GPU while the denoiser trains."""

    def __init__(self, pipe, precision: str = "fp32") -> None:
        self.pipe = pipe
        self.denoiser = pipe.unet.eval().requires_grad_(False)
        pipe.vae.eval().requires_grad_(False)
        pipe.text_encoder.eval().requires_grad_(False)
        self.device = torch.device(pipe.device)
        if self.device.type == "cpu":
            pipe.vae.to(memory_format=torch.channels_last)
        self.precision = precision
        self.scheduler = sampler_of(pipe.scheduler)
        self.prediction_type = self.scheduler.config.prediction_type
        check_prediction_type(self.prediction_type)
        self.alphas = self.scheduler.alphas_cumprod.to(self.device)
        self._cond: dict[str, torch.Tensor] = {}
        self._shelf = torch.device("cpu") if self.device.type == "cuda" else None
        parts = {"unet": self.denoiser, "text_encoder": pipe.text_encoder, "vae": pipe.vae}
        self.fingerprint, self._weights = hash_weights(parts, self.prediction_type, self.alphas)
        # Else autocast would cast the weights in every forward and hold both copies. Quantized ones have their dtype.
        if precision == "bf16" and not is_quantized(self.denoiser):
            self.denoiser.to(torch.bfloat16)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """{"encoder_hidden_states": [n, tokens, width]}; every distinct prompt is encoded once and cached."""
        new = dict.fromkeys(p for p in prompts if p not in self._cond)
        if new:
            self._wake(self.pipe.text_encoder)
        for prompt in new:
            tokens = self.pipe.tokenizer(
                prompt,
                padding="max_length",
                max_length=self.pipe.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            ).input_ids
            self._cond[prompt] = self.pipe.text_encoder(tokens.to(self.device))[0][0]
        return {"encoder_hidden_states": torch.stack([self._cond[p] for p in prompts])}

    def latent_shape(self, settings: SamplingSettings) -> tuple[int, int, int]:
        """(C, h, w) of the latents for the settings' picture size."""
        factor = self.pipe.vae_scale_factor
        return (self.denoiser.config.in_channels, settings.height // factor, settings.width // factor)

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SamplingSettings,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Latents float32 [n, C, h, w] on the CPU, sampled by DPM-Solver++ 2M from one noise per seed.

        The noise that sde-dpmsolver++ adds at each step comes from one generator per image too, so a candidate depends
        on its prompt and seed alone (up to rounding). Steps after the first `settings.guided_steps` run without
        guidance, with one forward.
        """
        shape = self.latent_shape(settings)
        generators = [torch.Generator().manual_seed(int(s)) for s in seeds]
        noise = [torch.randn(shape, generator=generator) for generator in generators]
        self.scheduler.set_timesteps(settings.steps)
        latents = torch.stack(noise).to(self.device) * self.scheduler.init_noise_sigma
        cond = self.encode_prompts(prompts)["encoder_hidden_states"]
        both = cond
        if settings.guided_steps:
            both = torch.cat([self.encode_prompts([""] * len(prompts))["encoder_hidden_states"], cond])
        for i, t in enumerate(self.scheduler.timesteps):
            guided = i < settings.guided_steps
            double = torch.cat([latents, latents]) if guided else latents
            with self._autocast():
                scaled = self.scheduler.scale_model_input(double, t)
                raw = self.denoiser(scaled, t, encoder_hidden_states=both if guided else cond).sample.float()
            if guided:
                plain, prompted = raw.chunk(2)
                raw = plain + settings.guidance * (prompted - plain)
            latents = self.scheduler.step(raw, t, latents, generator=generators).prev_sample
            if on_step:
                on_step(i + 1)
        return latents.float().cpu()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3] of latents [n, C, h, w].

        Raises UserError when the VAE's pixels are not finite.
        """
        self._wake(self.pipe.vae)
        scaled = latents.to(self.device) / self.pipe.vae.config.scaling_factor
        size = latents.shape[-1] * latents.shape[-2] * self.pipe.vae_scale_factor**2
        limit = _DECODE_PIXELS_CPU if self.device.type == "cpu" else _DECODE_PIXELS
        parts = [self.pipe.vae.decode(part).sample for part in scaled.split(max(1, limit // size))]
        decoded = torch.cat(parts).float()
        check_pixels(bool(torch.isfinite(decoded).all()))
        pixels = decoded.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        """Latents float32 [n, C, h, w] on the CPU, of pictures uint8 [n, H, W, 3]."""
        self._wake(self.pipe.vae)
        pixels = (
            torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(self.device)
        )
        encoded = self.pipe.vae.encode(pixels)
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return (latents * self.pipe.vae.config.scaling_factor).float().cpu()

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Uniform discrete timesteps 0..T-1 (Diffusion-DPO draws t ~ U(0, T))."""
        return torch.randint(0, len(self.alphas), (count,), generator=generator)

    def times_at(self, levels: torch.Tensor) -> torch.Tensor:
        """Discrete timesteps [n] for levels [n] above 0 to 1: places in the table of T steps."""
        return (levels * len(self.alphas)).long().clamp(max=len(self.alphas) - 1)

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """x_t = sqrt(a) x0 + sqrt(1-a) noise, and the target: the noise, or v = sqrt(a) noise - sqrt(1-a) x0."""
        return table_noised(self.alphas, self.prediction_type, x0, noise, times)

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The denoiser's raw prediction, float32 [n, C, h, w]."""
        with self._autocast():
            return self.denoiser(noised, times.to(self.device), **cond).sample.float()

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
