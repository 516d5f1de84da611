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
from ...sampling.picture_check import check_pixels
from ...settings import SamplingSettings
from ...training.blocks import is_unet
from ...training.memory.stream import mover_for, outside_blocks_placed
from . import guidance, host, prediction
from .classes import check_class, family_of_model, frame_of
from .conditioning import Entry, Prompted, batch, denoiser_cond, encode, groups, joined, runs
from .fingerprints import fingerprint
from .live import check_called, live_adapter
from .patches import patch_names
from .strength import UserLoras

BATCH_INVARIANT = (
    "euler", "heun", "dpm_2", "lms", "dpmpp_2m", "ipndm", "deis", "ddim", "uni_pc", "uni_pc_bh2", "res_multistep",
)  # fmt: skip
"""Samplers that add no noise: a candidate then depends on its prompt and seed alone (up to rounding)."""
TRAINING_SHARE = 3.0
"""Memory of a training step of n latents, as a multiple of ComfyUI's own estimate for sampling n latents."""

RANGE_SLACK = 0.05
"""Tolerance for VAE pixels outside 0..1.

ComfyUI clamps its pictures to that range, so larger values mean that the VAE is not one of this ComfyUI.
"""

Watch = Callable[[int, int, torch.Tensor], None]


class ComfyTextToImage(UserLoras):
    """A text-to-image model on ComfyUI's samplers, `apply_model` and memory management.

    `model`: a MODEL; its live adapter, if any, is active while sampling. `vae` may be None for training only, `clip`
    when nothing has to be encoded. `watch(step, steps, denoised)` is called after each sampler step with the current
    denoised latents; it may raise to interrupt. Raises UserError for an unsupported host, for models of
    other predictions than eps, v, flow and Cosmos, for video models, and for classes that are known not to train.
    """

    merges_adapter = False
    whole = True

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
        check_class(model.model)
        self.patcher, self.clip, self.vae = model, clip, vae
        self.sampler, self.scheduler, self.negative, self.watch = sampler, scheduler, negative, watch
        self.model_sampling = model.get_model_object("model_sampling")
        self.kind = prediction.kind_of(self.model_sampling)
        self.denoiser: nn.Module = model.model.diffusion_model
        self.family = family_of_model(model.model, self.kind)
        self.device: torch.device = model.load_device
        latent_format = model.get_model_object("latent_format")
        frame = frame_of(model.model, latent_format)
        factor = int(vae.spacial_compression_encode()) if vae is not None else 8
        self.latent_shape = (int(latent_format.latent_channels), *frame, height // factor, width // factor)
        computed = model.get_model_object("manual_cast_dtype") or model.model.get_dtype()
        self.precision = "fp32" if computed == torch.float32 else str(computed).removeprefix("torch.")
        self.training_batch = 2
        """Latents in one training forward, two per pair; decides the memory that is reserved."""
        self._entries: dict[str, Entry] = {}
        self._rows: dict[str, int] = {}
        self._conds: list[Prompted] = []
        self.fingerprint = fingerprint(model, clip, vae)
        self.patches = tuple(patch_names(model))
        """Names of the nodes whose functions are on the MODEL, for messages."""

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

    def take_texts(self, other: ComfyTextToImage) -> None:
        """Share the encoded prompts of a backend with the same CLIP, so that each is encoded once."""
        self._entries = other._entries

    def encode_texts(self, prompts: Sequence[str]) -> None:
        """Encode prompts that are not cached yet.

        Call it before `training`, so that the text encoder does not push the MODEL out of memory. Raises UserError
        without a CLIP.
        """
        for prompt in dict.fromkeys(prompts):
            self._entry(prompt)

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """The conditioning of n prompts, each encoded once: {"row": int64 [n]}, places in this object's own list.

        `predict` groups what may share a forward. The MODEL must be loaded (see `training`). Raises UserError for a
        model that needs more than prompts.
        """
        with torch.no_grad():
            for prompt in dict.fromkeys(prompts):
                if prompt in self._rows:
                    continue
                tensor, extras = self._entry(prompt)
                copies = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in extras.items()}
                entry = tensor.clone(), copies
                self._conds.append(denoiser_cond(self.patcher.model, entry, self.latent_shape, self.device))
                self._rows[prompt] = len(self._conds) - 1
        return {"row": torch.tensor([self._rows[p] for p in prompts])}

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
        shared = self._shares_forwards()
        parts = [list(range(len(prompts)))] if shared else runs(prompts)
        samples = []
        with torch.no_grad():
            for number, part in enumerate(parts):
                asked = [prompts[i] for i in part] if shared else [prompts[part[0]]]
                tell = self._callback(on_step, number, len(parts))
                samples.append(self._sample_part(asked, noise[part], settings, int(seeds[part[0]]), tell))
            check_called(self.patcher)
            latents = torch.cat(samples).float()
            return self.patcher.model.process_latent_in(latents).cpu()

    def _shares_forwards(self) -> bool:
        """Whether several prompts may be in one CONDITIONING: only a UNet takes embeddings of any length together."""
        return is_unet(self.denoiser)

    def _sample_part(
        self, prompts: Sequence[str], noise: torch.Tensor, settings: SamplingSettings, seed: int, tell: Callable
    ) -> torch.Tensor:
        """The host's latents for `noise` [n, ...]: of one prompt for all, or of n prompts."""
        conds = batch([self._entry(p) for p in prompts]), batch([self._entry(self.negative)] * len(prompts))
        given = self.patcher, noise, settings, self.sampler, self.scheduler, *conds, tell, seed
        return guidance.sample(*given) if settings.guidance_until < 1 < settings.guidance else host.sample(*given)

    def _callback(self, on_step: Callable[[int], None] | None, part: int, parts: int) -> Callable:
        """The samplers' callback of one of several calls; `on_step` gets 1..steps over all of them."""

        def callback(step: int, denoised: torch.Tensor, _x: torch.Tensor, steps: int) -> None:
            if on_step:
                on_step(-(-(part * steps + step + 1) // parts))
            if self.watch:
                self.watch(step + 1, steps, denoised)

        return callback

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

        Raises UserError when the VAE's pixels are not finite, or not in 0..1.
        """
        with torch.no_grad():
            pixels = self.vae.decode(self.patcher.model.process_latent_out(latents)).float()
            pixels = pixels.reshape(-1, *pixels.shape[-3:])  # a VAE of videos gives [n, frames, H, W, 3]
        check_pixels(bool(torch.isfinite(pixels).all()))
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
            pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
            # A VAE of videos takes the pictures of a batch for frames of one video.
            parts = pixels.split(1) if len(self.latent_shape) == 4 else [pixels]
            samples = torch.cat([self.vae.encode(part) for part in parts])
            return self.patcher.model.process_latent_in(samples.float()).cpu()

    # --- training ---

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Sigmas [count], uniform over the model's own table (which includes a flow model's shift)."""
        table = self.model_sampling.sigmas.cpu()
        return table[torch.randint(0, len(table), (count,), generator=generator)].clone()

    def times_at(self, levels: torch.Tensor) -> torch.Tensor:
        """Sigmas [n] for levels [n] above 0 to 1: a flow model's own, else places in the model's table."""
        if self.kind == "flow":
            return levels.clone()
        table = self.model_sampling.sigmas.cpu()
        return table[(levels * len(table)).long().clamp(max=len(table) - 1)].clone()

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The noised latents and the targets, see `prediction.noised`; times are sigmas [n]."""
        scale = float(getattr(self.model_sampling, "noise_scale", 1.0))
        return prediction.noised(self.kind, x0, noise, times.to(x0.device), scale)

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The network's raw prediction [n, C, h, w], float32; times are sigmas [n]."""
        options = self.patcher.model_options.get("transformer_options", {})
        sigmas, noised = times.to(self.device), noised.to(self.device)
        conds = [self._conds[row] for row in cond["row"].tolist()]
        parts = groups(conds)
        if len(parts) == 1:
            return self._predict(noised, sigmas, options, conds)
        raw = [self._predict(noised[part], sigmas[part], options, [conds[i] for i in part]) for part in parts]
        order = torch.tensor([i for part in parts for i in part], device=self.device)
        return torch.cat(raw)[order.argsort()]

    def _predict(
        self, noised: torch.Tensor, sigmas: torch.Tensor, options: dict, conds: Sequence[Prompted]
    ) -> torch.Tensor:
        """The raw prediction of samples whose conditioning shares a forward."""
        denoised = host.denoise(self.patcher.model, noised, sigmas, options, joined(conds))
        return prediction.raw_prediction(self.kind, noised.to(denoised), denoised, sigmas).float()

    @contextmanager
    def training(self, stream: bool | None = False) -> Iterator[None]:
        """Inside, the MODEL is loaded, frozen and safe to differentiate; `stream` as in the protocol.

        Under dynamic VRAM, `patcher` and `denoiser` are those of a plain copy inside (host.for_training). Raises
        RuntimeError for a MODEL with a live adapter, and UserError as `host.for_training` does.
        """
        if live_adapter(self.patcher) is not None:
            raise RuntimeError("remove the live adapter before training: it would act in addition to the trained one")
        needed = TRAINING_SHARE * self.patcher.model.memory_required([self.training_batch, *self.latent_shape])
        before = self.patcher, self.denoiser, self.model_sampling
        with host.for_training(self.patcher, needed, stream) as plain, ExitStack() as stack_:
            stack_.callback(self._use, *before)
            self._use(plain, plain.model.diffusion_model, plain.get_model_object("model_sampling"))
            if host.in_main_memory(plain):
                self.whole = False
                stack_.callback(setattr, self, "whole", True)
                stack_.enter_context(outside_blocks_placed(self.denoiser, mover_for(self.device)))
            if not is_unet(self.denoiser):
                # Transformers write in place after their norms, which would corrupt tensors that autograd has saved.
                for norm in [m for m in self.denoiser.modules() if isinstance(m, nn.LayerNorm)]:
                    stack_.callback(
                        norm.register_forward_pre_hook(lambda _m, args: (args[0].clone(), *args[1:])).remove
                    )
            yield

    def memory_for_training(self) -> tuple[float, float]:
        """(bytes free beside the loaded MODEL, bytes in all) of the device; on a CPU of main memory.

        The free ones are those that the host would leave to a sampler, without its reserve.
        """
        # A MODEL in main memory (level "stream") says that it is loaded to the CPU; the work is on the device.
        return host.free_memory(self.patcher, self.device), host.total_memory(self.device)

    def _use(self, patcher: Any, denoiser: nn.Module, model_sampling: Any) -> None:
        self.patcher, self.denoiser, self.model_sampling = patcher, denoiser, model_sampling
