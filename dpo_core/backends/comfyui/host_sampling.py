"""The host's samplers, previews, bar and interrupts. Entries of `host`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...settings import SamplingSettings

Conditioning = list[list]
Watch = Callable[[int, torch.Tensor, torch.Tensor, int], None]
"""callback(step, denoised, x, steps), as the host's samplers call it."""


def sampler_names() -> list[str]:
    """As the host's own sampling nodes list them."""
    import comfy.samplers

    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    """As the host's own sampling nodes list them."""
    import comfy.samplers

    return list(comfy.samplers.KSampler.SCHEDULERS)


def sample(
    patcher: Any,
    noise: torch.Tensor,
    settings: SamplingSettings,
    sampler: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    callback: Watch,
    seed: int,
) -> torch.Tensor:
    """Latents [n, C, h, w] as the host's KSampler draws them from an empty latent and this noise."""
    import comfy.sample

    given = (
        patcher,
        noise,
        settings.steps,
        settings.guidance,
        sampler,
        scheduler,
        positive,
        negative,
        torch.zeros_like(noise),
    )
    return comfy.sample.sample(*given, callback=callback, disable_pbar=True, seed=seed)


def sample_guided(
    patcher: Any,
    noise: torch.Tensor,
    settings: SamplingSettings,
    sampler: str,
    scheduler: str,
    positive: Conditioning,
    negative: Conditioning,
    callback: Watch,
    seed: int,
    guided_above: Callable[[list[float]], float],
) -> torch.Tensor:
    """As `sample`, by a guider as the host's custom-sampling nodes make them: with cfg at noise levels above
    `guided_above(sigmas)` alone, and cfg 1 below."""
    import comfy.model_management
    import comfy.samplers

    steps = comfy.samplers.KSampler(
        patcher,
        settings.steps,
        patcher.load_device,
        sampler,
        scheduler,
        denoise=1.0,
        model_options=patcher.model_options,
    )
    above = guided_above(steps.sigmas.tolist())

    class Guider(comfy.samplers.CFGGuider):
        """Here, not above: this module is imported where there is no ComfyUI, too."""

        def predict_noise(self, x: torch.Tensor, timestep: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
            self.set_cfg(settings.guidance if float(timestep.max()) > above else 1.0)
            return super().predict_noise(x, timestep, *args, **more)

    guider = Guider(patcher)
    guider.set_conds(positive, negative)
    method = comfy.samplers.sampler_object(steps.sampler)
    drawn = guider.sample(
        noise, torch.zeros_like(noise), method, steps.sigmas, callback=callback, disable_pbar=True, seed=seed
    )
    return drawn.to(comfy.model_management.intermediate_device())


def check_interrupt() -> None:
    """Raises the host's interrupt where the user has asked for one; the request is taken back with it."""
    from comfy.model_management import throw_exception_if_processing_interrupted

    throw_exception_if_processing_interrupted()


def progress_bar(total: int, node_id: str | None) -> Any:
    """The host's bar on a node: update_absolute(done, total, preview), preview ("JPEG", PIL picture, size)."""
    from comfy.utils import ProgressBar

    return ProgressBar(total, node_id=node_id)


def previewer(model: Any) -> Any:
    """The host's fast decoder for previews of this MODEL: decode_latent_to_preview_image("JPEG", latents); None where
    it has none.
    """
    import latent_preview

    return latent_preview.get_previewer(model.load_device, model.get_model_object("latent_format"))
