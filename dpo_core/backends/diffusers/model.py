"""The TextToImage protocol, implemented on a diffusers StableDiffusionPipeline."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch

from ...errors import UserError
from ...hashing import update_with_tensor
from ...protocols import Cond
from ...settings import SamplingSettings

_DOWN = re.compile(r"lora[._](down|A)(\.\w+)?\.weight$")
"""Matches the key of the first matrix of a LoRA layer (one per layer) in kohya, PEFT and older diffusers files."""
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

    Raises UserError when the folder is not such a pipeline or the LoRA is of another model.
    """
    from diffusers import StableDiffusionPipeline

    folder = Path(folder)
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f"model folder {folder} has no model_index.json. "
            "Give a diffusers folder, as pipeline.save_pretrained() writes it."
        )
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"model folder {folder} cannot be loaded as a StableDiffusionPipeline: {error}") from error
    pipe.set_progress_bar_config(disable=True)
    if lora is not None:
        _merge_lora(pipe, Path(lora), lora_strength)
    return pipe.to(device)


def _merge_lora(pipe, lora: Path, strength: float) -> None:
    """Raises UserError when not all layers of the LoRA are in the model."""
    from ...training.lora_files import read_lora

    tensors = read_lora(lora)
    given = sum(bool(_DOWN.search(key)) for key in tensors)
    try:
        pipe.load_lora_weights(tensors)
        taken = sum(len(getattr(m, "lora_A", ())) for part in (pipe.unet, pipe.text_encoder) for m in part.modules())
        # diffusers skips layers that it does not find, at most with a log line.
        if taken != given:
            raise ValueError(f"{taken} of its {given} layers are in the model")
        pipe.fuse_lora(lora_scale=strength)
        pipe.unload_lora_weights()
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"LoRA {lora} does not fit this model: {reason}. Give a LoRA that was trained on this model."
        ) from error


class DiffusersTextToImage:
    """Sampling, prediction and decoding with a StableDiffusionPipeline; its weights are frozen.

    `precision`: "fp32", or "bf16" for autocast in `predict` and `sample`, with the denoiser's weights in bf16. Raises
    UserError for a prediction type other than epsilon and v_prediction.
    """

    merges_adapter = True
    whole = True
    """The weights are on the device for sampling in any case; the memory level "stream" takes the blocks off."""
    resting = ("vae", "text_encoder")
    """Parts of the pipeline that are moved off the GPU while the denoiser trains."""

    def __init__(self, pipe, precision: str = "fp32") -> None:
        from diffusers import DPMSolverMultistepScheduler

        self.pipe = pipe
        self.denoiser = pipe.unet.eval().requires_grad_(False)
        pipe.vae.eval().requires_grad_(False)
        pipe.text_encoder.eval().requires_grad_(False)
        self.device = torch.device(pipe.device)
        if self.device.type == "cpu":
            pipe.vae.to(memory_format=torch.channels_last)
        self.precision = precision
        self.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
        self.prediction_type = self.scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(
                f"prediction type {self.prediction_type!r} of this model is not supported. "
                "Use a model with epsilon or v_prediction."
            )
        self.alphas = self.scheduler.alphas_cumprod.to(self.device)
        self._cond: dict[str, torch.Tensor] = {}
        self._shelf = torch.device("cpu") if self.device.type == "cuda" else None
        self.fingerprint = self._fingerprint()
        if precision == "bf16":  # else autocast would cast the weights in every forward and hold both copies
            self.denoiser.to(torch.bfloat16)

    def _fingerprint(self) -> str:
        """Hash (16 hex digits) of weights, prediction type and noise schedule; independent of device and threads."""
        digest = hashlib.sha256(self.prediction_type.encode() + self.alphas.cpu().half().numpy().tobytes())
        for module in (self.denoiser, self.pipe.text_encoder, self.pipe.vae):
            for name, weight in module.named_parameters():
                digest.update(f"{name}{tuple(weight.shape)}".encode())
                update_with_tensor(digest, weight.float())
        return digest.hexdigest()[:16]

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

        The sampler is deterministic, so a candidate depends on its prompt and seed alone (up to rounding). Steps after
        the first `settings.guided_steps` run without guidance, with one forward.
        """
        shape = self.latent_shape(settings)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
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
            latents = self.scheduler.step(raw, t, latents).prev_sample
            if on_step:
                on_step(i + 1)
        return latents.float().cpu()

    def pictures_at_once(self, settings: SamplingSettings, most: int) -> None:
        """None: diffusers has no memory estimate, so the caller measures."""
        return None

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3] of latents [n, C, h, w]."""
        self._wake(self.pipe.vae)
        scaled = latents.to(self.device) / self.pipe.vae.config.scaling_factor
        size = latents.shape[-1] * latents.shape[-2] * self.pipe.vae_scale_factor**2
        limit = _DECODE_PIXELS_CPU if self.device.type == "cpu" else _DECODE_PIXELS
        parts = [self.pipe.vae.decode(part).sample for part in scaled.split(max(1, limit // size))]
        pixels = torch.cat(parts).float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
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
        a = self.alphas[times.to(self.device)].view(-1, 1, 1, 1).to(x0.dtype)
        noised = a.sqrt() * x0 + (1 - a).sqrt() * noise
        target = noise if self.prediction_type == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * x0
        return noised, target

    @contextmanager
    def training(self, stream: bool | None = False) -> Iterator[None]:
        """Inside, only the denoiser is on the GPU; VAE and text encoder return with the first call that needs them."""
        with torch.enable_grad():
            if self._shelf is not None:
                for name in self.resting:
                    getattr(self.pipe, name).to(self._shelf)
            yield

    def memory_for_training(self) -> tuple[float, float] | None:
        """(bytes free beside the loaded weights, bytes of the GPU in all); None without a GPU."""
        if self.device.type != "cuda":
            return None
        free, total = torch.cuda.mem_get_info(self.device)
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return free + unused, total

    def _wake(self, part: torch.nn.Module) -> None:
        if self._shelf is not None:
            part.to(self.device)

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The denoiser's raw prediction, float32 [n, C, h, w]."""
        with self._autocast():
            return self.denoiser(noised, times.to(self.device), **cond).sample.float()

    def _autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
