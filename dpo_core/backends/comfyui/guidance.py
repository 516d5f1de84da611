"""Guidance in the first part of a sampler's steps, by a guider as ComfyUI's own custom-sampling nodes make them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...settings import SamplingSettings

Conditioning = list[list]


def guided_above(sigmas: Sequence[float], until: float) -> float:
    """The noise level above which there is guidance: the first round(until * steps) steps begin above it, the others below.

    sigmas: falling, one more than there are steps. By the level and not by the step, since some samplers ask the model twice a step. It
    lies a hundredth of a step above the first step without guidance, so that no rounding decides; infinite where no step is guided.
    """
    guided = round(until * (len(sigmas) - 1))
    if not guided:
        return math.inf
    before, after = float(sigmas[guided - 1]), float(sigmas[guided])
    return after + 0.01 * (before - after)


def sample(
    patcher: Any,
    noise: torch.Tensor,
    settings: SamplingSettings,
    sampler: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    callback: Callable[[int, torch.Tensor, torch.Tensor, int], None],
    seed: int,
) -> torch.Tensor:
    """As comfy.sample.sample from an empty latent, with the negative prompt in the first `settings.guidance_until` of the steps alone.

    noise: [n, C, h, w]; returns as many latents. From there on it is the host's own sampling at cfg 1: one forward a prompt, except
    with samplers and patches that ask for the other one at any cfg (euler_cfg_pp).
    """
    import comfy.model_management
    import comfy.samplers

    steps = comfy.samplers.KSampler(
        patcher, settings.steps, patcher.load_device, sampler, scheduler, denoise=1.0, model_options=patcher.model_options
    )
    above = guided_above(steps.sigmas.tolist(), settings.guidance_until)

    class Guider(comfy.samplers.CFGGuider):
        """Here, not above: this module is imported where there is no ComfyUI, too."""

        def predict_noise(self, x: torch.Tensor, timestep: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
            self.set_cfg(settings.guidance if float(timestep.max()) > above else 1.0)
            return super().predict_noise(x, timestep, *args, **more)

    guider = Guider(patcher)
    guider.set_conds(positive, negative)
    method = comfy.samplers.sampler_object(steps.sampler)
    drawn = guider.sample(noise, torch.zeros_like(noise), method, steps.sigmas, callback=callback, disable_pbar=True, seed=seed)
    return drawn.to(comfy.model_management.intermediate_device())
