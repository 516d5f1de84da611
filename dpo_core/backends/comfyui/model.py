"""The TextToImage protocol, implemented on ComfyUI's MODEL, CLIP and VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from ...errors import UserError
from ...protocols import Cond
from ...sampling.free_memory import FALLBACK_BATCH, pictures_that_fit
from ...settings import SamplingSettings
from . import guidance, host, prediction
from .conditioning import Entry, batch, denoiser_cond, encode, stack
from .fingerprints import fingerprint
from .live import live_adapter

BATCH_INVARIANT = ("euler", "heun", "dpm_2", "lms", "dpmpp_2m", "ipndm", "deis", "ddim", "uni_pc", "uni_pc_bh2")
"""Samplers that add no noise: a candidate then depends on its prompt and seed alone (up to rounding)."""
TRAINING_SHARE = 3.0
"""Memory of a training step of n latents, as a multiple of ComfyUI's own estimate for sampling n latents."""

RANGE_SLACK = 0.05
"""Tolerance for VAE pixels outside 0..1.

ComfyUI clamps its pictures to that range, so larger values mean that the VAE is not one of this ComfyUI.
"""

Watch = Callable[[int, int, torch.Tensor], None]


class ComfyTextToImage:
    """A text-to-image model on ComfyUI's samplers, `apply_model` and memory management.

    `model`: a MODEL; its live adapter, if any, is active while sampling. `vae` may be None for training only, `clip`
    when nothing has to be encoded. `watch(step, steps, denoised)` is called after each sampler step with the current
    denoised latents; it may raise to interrupt. Raises UserError for an unsupported host, for models that are not eps,
    v or flow, and for video models.
    """

    merges_adapter = False

    def __init__(
        self,
        model: Any,
        clip: Any = None,
        vae: Any = None,
        width: int = 512,
        height: int = 512,
        sampler: str = "dpmpp_2m",
        scheduler: str = "karras",
        negative: str = "",
        watch: Watch | None = None,
    ) -> None:
        host.check()
        self.patcher, self.clip, self.vae = model, clip, vae
        self.sampler, self.scheduler, self.negative, self.watch = sampler, scheduler, negative, watch
        self.model_sampling = model.get_model_object("model_sampling")
        self.kind = prediction.kind_of(self.model_sampling)
        self.denoiser: nn.Module = model.model.diffusion_model
        self.device: torch.device = model.load_device
        latent_format = model.get_model_object("latent_format")
        if latent_format.latent_dimensions != 2:
            raise UserError("this is a video model, but candidates are pictures. Use a text-to-image model.")
        factor = int(vae.spacial_compression_encode()) if vae is not None else 8
        self.latent_shape = (int(latent_format.latent_channels), height // factor, width // factor)
        computed = model.model.manual_cast_dtype or model.model.get_dtype()
        self.precision = "fp32" if computed == torch.float32 else str(computed).removeprefix("torch.")
        self.training_batch = 2
        """Latents in one training forward, two per pair; decides the memory that is reserved."""
        self._entries: dict[str, Entry] = {}
        self._conds: dict[str, dict[str, torch.Tensor]] = {}
        self.fingerprint = fingerprint(model, clip, vae)

    # --- prompts ---

    def _entry(self, prompt: str) -> Entry:
        if prompt not in self._entries:
            if self.clip is None:
                raise UserError(
                    "no CLIP is connected, but the prompts must be encoded: connect the CLIP of this MODEL."
                )
            with torch.no_grad():
                self._entries[prompt] = encode(self.clip, prompt)
        return self._entries[prompt]

    def encode_texts(self, prompts: Sequence[str]) -> None:
        """Encode prompts that are not cached yet.

        Call it before `training`, so that the text encoder does not push the MODEL out of memory. Raises UserError
        without a CLIP.
        """
        for prompt in dict.fromkeys(prompts):
            self._entry(prompt)

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """The denoiser's conditioning of n prompts ([n, ...] tensors on the load device), each encoded once.

        The MODEL must be loaded (see `training`).
        """
        new = [p for p in dict.fromkeys(prompts) if p not in self._conds]
        with torch.no_grad():
            for prompt in new:
                tensor, extras = self._entry(prompt)
                entry = (
                    tensor.clone(),
                    {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in extras.items()},
                )
                self._conds[prompt] = denoiser_cond(self.patcher.model, entry, self.latent_shape, self.device)
        return stack([self._conds[p] for p in prompts])

    # --- sampling ---

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SamplingSettings,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Latents float32 [n, C, h, w] in the denoiser's space, from one noise per seed.

        With a sampler of BATCH_INVARIANT a candidate depends on its prompt and seed alone; other samplers draw noise
        for the batch as a whole.
        """
        noise = torch.stack(
            [torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        )

        def callback(step: int, denoised: torch.Tensor, _x: torch.Tensor, steps: int) -> None:
            if on_step:
                on_step(step + 1)
            if self.watch:
                self.watch(step + 1, steps, denoised)

        with torch.no_grad():
            how, seed = (self.sampler, self.scheduler), int(seeds[0])
            conds = batch([self._entry(p) for p in prompts]), batch([self._entry(self.negative)] * len(prompts))
            given = self.patcher, noise, settings, *how, *conds, callback, seed
            samples = (
                guidance.sample(*given) if settings.guidance_until < 1 < settings.guidance else host.sample(*given)
            )
            return self.patcher.model.process_latent_in(samples.float()).cpu()

    def pictures_at_once(self, settings: SamplingSettings, most: int) -> int:
        """Number of pictures to sample at once, at most `most`: as many as fit by ComfyUI's own estimate.

        Loads the MODEL and unloads other models for it. For samplers that add noise it is a fixed number, since the
        batch size changes their pictures.
        """
        if self.sampler not in BATCH_INVARIANT:
            return min(FALLBACK_BATCH, most)
        # Two rows per picture, prompt and negative, as ComfyUI estimates at any cfg.
        each = self.patcher.model.memory_required([2, *self.latent_shape])
        host.load(self.patcher, most * each, least=each)
        return pictures_that_fit(host.free_memory(self.patcher), each, most)

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3] of latents [n, C, h, w] in the denoiser's space.

        Raises UserError when the VAE's pixels are not in 0..1.
        """
        with torch.no_grad():
            pixels = self.vae.decode(self.patcher.model.process_latent_out(latents)).float()
        low, high = float(pixels.min()), float(pixels.max())
        if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
            raise UserError(
                f"the VAE gives values from {low:.2f} to {high:.2f}, but ComfyUI's pictures are in 0 to 1: colours "
                "would be wrong. The node that loads it does not fit this ComfyUI. Load the VAE with Load VAE or Load "
                "Checkpoint, or update that node."
            )
        return (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()

    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        """Latents float32 [n, C, h, w] in the denoiser's space, of pictures uint8 [n, H, W, 3]."""
        with torch.no_grad():
            samples = self.vae.encode(torch.from_numpy(np.ascontiguousarray(images)).float() / 255)
            return self.patcher.model.process_latent_in(samples.float()).cpu()

    # --- training ---

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Sigmas [count], uniform over the model's own table (which includes a flow model's shift)."""
        table = self.model_sampling.sigmas.cpu()
        return table[torch.randint(0, len(table), (count,), generator=generator)].clone()

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The noised latents and the targets, see `prediction.noised`; times are sigmas [n]."""
        return prediction.noised(self.kind, x0, noise, times.to(x0.device))

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The network's raw prediction [n, C, h, w], float32; times are sigmas [n]."""
        options = self.patcher.model_options.get("transformer_options", {})
        sigmas = times.to(self.device)
        denoised = host.denoise(self.patcher.model, noised.to(self.device), sigmas, options, cond)
        return prediction.raw_prediction(self.kind, noised.to(denoised), denoised, sigmas).float()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Inside, the MODEL is loaded as a whole, frozen and safe to differentiate.

        Under dynamic VRAM, `patcher` and `denoiser` are those of a plain copy inside (host.for_training). Raises
        RuntimeError for a MODEL with a live adapter, and UserError as `host.for_training` does.
        """
        if live_adapter(self.patcher) is not None:
            raise RuntimeError("remove the live adapter before training: it would act in addition to the trained one")
        needed = TRAINING_SHARE * self.patcher.model.memory_required([self.training_batch, *self.latent_shape])
        before = self.patcher, self.denoiser, self.model_sampling
        with ExitStack() as stack_, host.for_training(self.patcher, needed) as plain:
            stack_.callback(self._use, *before)
            self._use(plain, plain.model.diffusion_model, plain.get_model_object("model_sampling"))
            if "input_blocks" not in dict(self.denoiser.named_children()):
                # Transformers write in place after their norms, which would corrupt tensors that autograd has saved.
                for norm in [m for m in self.denoiser.modules() if isinstance(m, nn.LayerNorm)]:
                    stack_.callback(
                        norm.register_forward_pre_hook(lambda _m, args: (args[0].clone(), *args[1:])).remove
                    )
            yield

    def _use(self, patcher: Any, denoiser: nn.Module, model_sampling: Any) -> None:
        self.patcher, self.denoiser, self.model_sampling = patcher, denoiser, model_sampling
