"""The TextToImage protocol, implemented on any pipeline of `DRIVEN`: drawn by its own call, trained by its denoiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import numpy as np
import torch

from ...errors import UserError
from ...protocols import Cond
from ...sampling.picture_check import check_pixels
from ...settings import SamplingSettings
from .drawing import joined_embeds, sizes, step_callback, without_text_encoders
from .identity import hash_weights, model_parts
from .inputs import Call, Inputs, groups, inputs_of, joined, key, record
from .latents import from_vae, takes_frames, to_vae
from .pipelines import DRIVEN, component, from_tokens, guidance_arguments, patch_size, to_tokens
from .residence import Resident
from .schedules import schedule_of, table_noised

EMBEDDED_GUIDANCE = 3.5
"""What a guidance-distilled model takes as its guidance (Flux.1 dev's own default, in diffusers and ComfyUI)."""
_TOLERANCE = 1e-3
"""Largest difference of a denoiser called here and by its pipeline, as a share of the prediction's largest value."""


class PipelineTextToImage(Resident):
    """Sampling by the pipeline's own call, prediction by its denoiser; its weights are frozen.

    width, height: size of the pictures in pixels. Raises UserError for a prediction type other than epsilon,
    v_prediction and flow, and when this version of diffusers calls the denoiser otherwise than `DRIVEN` says.
    """

    encoded = "_embeds"

    def __init__(self, pipe: Any, precision: str, width: int, height: int) -> None:
        self.pipe, self.precision = pipe, precision
        self.driven = DRIVEN[type(pipe).__name__]
        self.component = component(pipe)
        self.denoiser = getattr(pipe, self.component)
        self.device = torch.device(self.denoiser.device)
        parts = model_parts(pipe)
        for part in parts.values():
            part.eval().requires_grad_(False)
        self.resting = tuple(name for name in parts if name != self.component)
        self._shelf = torch.device("cpu") if self.device.type == "cuda" else None
        self.kind, self.levels = schedule_of(pipe.scheduler, self.driven.flow)
        self.fingerprint, self._weights = hash_weights(parts, self.kind, self.levels)
        self._drawing = without_text_encoders(pipe)
        self.width, self.height = width, height
        self._embeds: dict[str, dict[str, Any]] = {}
        self._rows: dict[str, int] = {}
        self._inputs: list[tuple[Inputs, Any]] = []
        """Of each row, with their key: a key reads tensors, which a GPU would have to be asked for."""
        self._checked = False

    # --- prompts ---

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> None:
        """Encode prompts that are not cached yet, each alone; the text encoders are on the device only meanwhile."""
        new = [p for p in dict.fromkeys(prompts) if p not in self._embeds]
        if not new:
            return
        encoders = [getattr(self.pipe, name) for name in self.resting if name.startswith("text_encoder")]
        for encoder in encoders:
            self._wake(encoder)
        for prompt in new:
            # A list of its own: some classes write their template into the one that they are given.
            returned = self.pipe.encode_prompt(prompt=[prompt], device=self.device, **self._alone())
            named = zip(self.driven.embeds, returned, strict=True)
            self._embeds[prompt] = {name: value for name, value in named if name is not None}
        if self._shelf is not None:
            for encoder in encoders:
                encoder.to(self._shelf)

    def _alone(self) -> dict[str, Any]:
        """Arguments of `encode_prompt` besides prompt and device: no negative prompt, the same prompt everywhere."""
        takes = signature(type(self.pipe).encode_prompt).parameters
        given: dict[str, Any] = {name: None for name in ("prompt_2", "prompt_3") if name in takes}
        return {**given, **{name: False for name in ("do_classifier_free_guidance",) if name in takes}}

    def _negative(self, prompt: str) -> dict[str, Any]:
        """The call's arguments of the empty negative prompt: zeros for an SDXL model that is configured so."""
        if self.pipe.config.get("force_zeros_for_empty_prompt"):
            return {f"negative_{name}": torch.zeros_like(value) for name, value in self._embeds[prompt].items()}
        return {f"negative_{name}": value for name, value in self._embeds[""].items()}

    def encode_prompts(self, prompts: Sequence[str]) -> Cond:
        """The conditioning of n prompts, each encoded once: {"row": int64 [n]}, places in this object's own list."""
        self._encode(prompts)
        self._check()
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._rows:
                found = inputs_of(self._record(prompt, whole=False), self.driven.inputs)
                self._inputs.append((found, key(found)))
                self._rows[prompt] = len(self._inputs) - 1
        return {"row": torch.tensor([self._rows[p] for p in prompts])}

    @torch.no_grad()
    def _record(self, prompt: str, whole: bool) -> Call:
        """The denoiser's first call for two pictures of a prompt, without classifier-free guidance."""
        given = joined_embeds([self._embeds[prompt]] * 2)
        given |= guidance_arguments(self.pipe, self.driven, 1.0, EMBEDDED_GUIDANCE)
        seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]

        def call() -> None:
            self._drawing(
                **given, width=self.width, height=self.height, num_inference_steps=2, generator=seeds,
                output_type="latent",
            )  # fmt: skip

        return record(self._drawing, self.denoiser, call, whole)

    @torch.no_grad()
    def _check(self) -> None:
        """Raises UserError unless `predict` gives what the pipeline itself gives to its scheduler (once a model)."""
        if self._checked:
            return
        self._encode([""])
        call = self._record("", whole=True)
        name, time = self.driven.inputs
        given, times = call.arguments[name], torch.as_tensor(call.arguments[time]).float().reshape(-1).expand(2)
        tokens = torch.stack(list(given)).squeeze(2) if self.driven.listed else given
        latents = from_tokens(tokens.float(), self.shape(), self.driven, patch_size(self.pipe))
        inputs = [inputs_of(call, self.driven.inputs)] * 2
        own = to_tokens(self._forward(latents, times, inputs), self.driven, patch_size(self.pipe))
        apart = float((own - call.prediction.float()).abs().max() / call.prediction.float().abs().max())
        sigma = float(self._drawing.scheduler.sigmas[0]) if self.driven.flow else None
        expected = float(self._denoiser_times(torch.tensor([sigma]))) if sigma is not None else float(times[0])
        if not apart < (_TOLERANCE if self.precision == "fp32" else 20 * _TOLERANCE) or abs(expected - times[0]) > 1e-3:
            import diffusers

            raise UserError(
                f"diffusers {diffusers.__version__} calls the denoiser of {type(self.pipe).__name__} in a way that is "
                f"not known here (its prediction differs by {apart:.1%}, its time is {float(times[0]):g} instead of "
                f"{expected:g}). Update dreambooth-dpo, or install diffusers 0.42."
            )
        self._checked = True

    # --- drawing ---

    def shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents."""
        patch = {"": 1, "patches": patch_size(self.pipe), "places": 1}[self.driven.tokens]
        channels = self.denoiser.config.in_channels
        factor = self.pipe.vae_scale_factor * (2 if self.driven.tokens == "places" else 1)
        return channels // patch**2, self.height // factor, self.width // factor

    def latent_shape(self, settings: SamplingSettings) -> tuple[int, int, int]:
        """(C, h, w) of the latents; the pictures' size is this object's own."""
        return self.shape()

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: SamplingSettings,
        on_step: Callable[[int], None] | None = None,
    ) -> torch.Tensor:
        """Latents float32 [n, C, h, w] on the CPU, as the pipeline itself draws them, from one generator per seed.

        Pictures whose prompts have equal sizes share a call. Raises UserError for settings that the pipeline lacks.
        """
        self._check_settings(settings)
        guided = settings.guidance > 1
        self._encode([*prompts, ""] if guided else prompts)
        self._check()
        parts = groups([sizes(self._embeds[p]) for p in prompts])
        latents: list[torch.Tensor] = [torch.empty(0)] * len(prompts)
        for number, part in enumerate(parts):
            given = joined_embeds([self._embeds[prompts[i]] for i in part])
            if guided:
                given |= joined_embeds([self._negative(prompts[i]) for i in part])
            given |= guidance_arguments(self.pipe, self.driven, settings.guidance, EMBEDDED_GUIDANCE)
            tell = step_callback(on_step, number, len(parts))
            drawn = self._draw(given, [int(seeds[i]) for i in part], settings.steps, tell)
            for place, one in zip(part, drawn, strict=True):
                latents[place] = one
        return torch.stack(latents)

    @torch.no_grad()
    def _draw(self, given: dict[str, Any], seeds: list[int], steps: int, tell: Callable[[int, int], None]):
        kept: dict[str, torch.Tensor] = {}

        def after(_pipe: Any, step: int, _t: Any, tensors: dict) -> dict:
            kept["latents"] = tensors["latents"]
            tell(step + 1, steps)
            return {}

        self._drawing(
            **given, width=self.width, height=self.height, num_inference_steps=steps, output_type="latent",
            generator=[torch.Generator().manual_seed(seed) for seed in seeds], callback_on_step_end=after,
            callback_on_step_end_tensor_inputs=["latents"],
        )  # fmt: skip
        return from_tokens(kept["latents"].float().cpu(), self.shape(), self.driven, patch_size(self.pipe))

    def _check_settings(self, settings: SamplingSettings) -> None:
        name = type(self.pipe).__name__
        guidance_arguments(self.pipe, self.driven, settings.guidance, EMBEDDED_GUIDANCE)
        if settings.guidance_until < 1:
            raise UserError(
                f"sampling.guidance_until is {settings.guidance_until:g}, but {name} draws with guidance in all steps. "
                "Set it to 1."
            )

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Pictures uint8 [n, H, W, 3] of latents [n, C, h, w]; one is decoded at a time.

        Raises UserError when the VAE's pixels are not finite.
        """
        vae = self.pipe.vae
        self._wake(vae)
        own = to_vae(vae, latents.to(self.device)).to(vae.dtype)
        decoded = torch.cat([vae.decode(part, return_dict=False)[0] for part in own.split(1)]).float()
        decoded = decoded[:, :, 0] if takes_frames(vae) else decoded
        check_pixels(bool(torch.isfinite(decoded).all()))
        pixels = decoded.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def encode_images(self, images: np.ndarray) -> torch.Tensor:
        """Latents float32 [n, C, h, w] on the CPU, of pictures uint8 [n, H, W, 3]."""
        vae = self.pipe.vae
        self._wake(vae)
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
        pixels = pixels.to(self.device, vae.dtype)
        pixels = pixels.unsqueeze(2) if takes_frames(vae) else pixels
        encoded = torch.cat([vae.encode(part).latent_dist.mode() for part in pixels.split(1)])
        return from_vae(vae, encoded.float()).cpu()

    # --- training ---

    def draw_timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Training times [count], uniform over the scheduler's own table."""
        places = torch.randint(0, len(self.levels), (count,), generator=generator)
        return self.levels[places].clone() if self.driven.flow else places

    def times_at(self, levels: torch.Tensor) -> torch.Tensor:
        """Training times [n] for levels [n] above 0 to 1: a flow model's own, else places in the table."""
        if self.driven.flow:
            return levels.clone()
        return (levels * len(self.levels)).long().clamp(max=len(self.levels) - 1)

    def noised(self, x0: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A flow model's x_t = (1 - s) x0 + s noise and target noise - x0 (arXiv 2210.02747); else `table_noised`."""
        if not self.driven.flow:
            return table_noised(self.levels.to(self.device), self.kind, x0, noise, times)
        s = times.to(x0).view(-1, 1, 1, 1)
        return (1 - s) * x0 + s * noise, noise - x0

    def predict(self, noised: torch.Tensor, times: torch.Tensor, cond: Cond) -> torch.Tensor:
        """The denoiser's raw prediction, float32 [n, C, h, w]; prompts of other sizes are in forwards of their own."""
        inputs, keys = zip(*(self._inputs[row] for row in cond["row"].tolist()), strict=True)
        times = self._denoiser_times(times.to(self.device))
        parts = groups(keys)
        raw = [self._forward(noised[part], times[part], [inputs[i] for i in part]) for part in parts]
        order = torch.tensor([i for part in parts for i in part], device=raw[0].device)
        return raw[0] if len(parts) == 1 else torch.cat(raw)[order.argsort()]

    def _denoiser_times(self, times: torch.Tensor) -> torch.Tensor:
        """Training times as the denoiser takes them (see `Driven.time`)."""
        if not self.driven.flow or self.driven.time == "levels":
            return times
        return 1 - times if self.driven.time == "reversed" else times * 1000

    def _forward(self, latents: torch.Tensor, times: torch.Tensor, inputs: Sequence[Inputs]) -> torch.Tensor:
        """The denoiser's prediction float32 [n, C, h, w] for inputs with equal keys."""
        arguments = {name: joined([one[name] for one in inputs]) for name in inputs[0]}
        where, when = self.driven.inputs
        tokens = to_tokens(latents.to(self.device, self.denoiser.dtype), self.driven, patch_size(self.pipe))
        given = list(tokens.unsqueeze(2).unbind()) if self.driven.listed else tokens
        arguments = {where: given, when: times.to(self.device), **arguments, "return_dict": False}
        raw = self.denoiser(**arguments)[0]
        raw = -torch.stack(list(raw)).squeeze(2) if self.driven.listed else raw
        return from_tokens(raw.float(), tuple(latents.shape[1:]), self.driven, patch_size(self.pipe))
