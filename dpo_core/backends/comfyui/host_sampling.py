"""The host's samplers, previews, progress bar and interrupts. Used through `host`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...settings import SamplingSettings

Conditioning = list[list]
Watch = Callable[[int, torch.Tensor, torch.Tensor, int], None]
"""callback(step, denoised, x, steps) of the host's samplers."""


def sampler_names() -> list[str]:
    """Names of the samplers, as in the host's own sampling nodes."""
    import comfy.samplers

    return list(comfy.samplers.KSampler.SAMPLERS)


def scheduler_names() -> list[str]:
    """Names of the schedulers, as in the host's own sampling nodes."""
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
    """Latents [n, C, h, w], sampled as by the host's KSampler from an empty latent and `noise` [n, C, h, w]."""
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
    """Like `sample`, but with guidance only at noise levels above `guided_above(sigmas)`, and cfg 1 below.

    It uses a guider as the host's custom sampling nodes do.
    """
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
        """Defined here, since this module is also imported without a ComfyUI."""

        def predict_noise(self, x: torch.Tensor, timestep: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
            self.set_cfg(settings.guidance if float(timestep.max()) > above else 1.0)
            return super().predict_noise(x, timestep, *args, **more)

    guider = Guider(patcher)
    guider.set_conds(positive, negative)
    method = comfy.samplers.sampler_object(steps.sampler)
    samples = guider.sample(
        noise, torch.zeros_like(noise), method, steps.sigmas, callback=callback, disable_pbar=True, seed=seed
    )
    return samples.to(comfy.model_management.intermediate_device())


def check_interrupt() -> None:
    """Raises the host's interrupt exception if the user has requested one; this clears the request."""
    from comfy.model_management import throw_exception_if_processing_interrupted

    throw_exception_if_processing_interrupted()


def progress_bar(total: int, node_id: str | None) -> Any:
    """The host's progress bar on a node.

    Method: update_absolute(done, total, preview), with preview ("JPEG", PIL picture, size).
    """
    from comfy.utils import ProgressBar

    return ProgressBar(total, node_id=node_id)


def previewer(model: Any) -> Any:
    """The host's fast preview decoder for this MODEL; None if it has none.

    Method: decode_latent_to_preview_image("JPEG", latents).
    """
    import latent_preview

    return latent_preview.get_previewer(model.load_device, model.get_model_object("latent_format"))


def kinds() -> dict[str, type]:
    """The host's classes of the prediction types that can be trained, by name: "eps", "v", "flow", "cosmos"."""
    import comfy.model_sampling as sampling

    return {"eps": sampling.EPS, "v": sampling.V_PREDICTION, "flow": sampling.CONST, "cosmos": sampling.COSMOS_RFLOW}
