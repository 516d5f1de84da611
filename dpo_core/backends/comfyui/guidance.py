"""Guidance in the first part of a sampler's steps, by a guider as ComfyUI's own custom-sampling nodes make them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...settings import SamplingSettings
from . import host


def guided_above(sigmas: Sequence[float], until: float) -> float:
    """The noise level above which there is guidance: the first round(until * steps) steps begin above it, the others
    below.

    sigmas: falling, one more than there are steps. By the level and not by the step, since some samplers ask the model
    twice a step. It lies a hundredth of a step above the first step without guidance, so that no rounding decides;
    infinite where no step is guided.
    """
    guided = round(until * (len(sigmas) - 1))
    if not guided:
        return math.inf
    before, after = float(sigmas[guided - 1]), float(sigmas[guided])
    return after + 0.01 * (before - after)


def sample(patcher: Any, noise: torch.Tensor, settings: SamplingSettings, *given: Any) -> torch.Tensor:
    """As host.sample, with the negative prompt in the first `settings.guidance_until` of the steps alone.

    From there on it is the host's own sampling at cfg 1: one forward a prompt, except with samplers and patches that
    ask for the other one at any cfg (euler_cfg_pp).
    """
    return host.sample_guided(
        patcher, noise, settings, *given, lambda sigmas: guided_above(sigmas, settings.guidance_until)
    )
