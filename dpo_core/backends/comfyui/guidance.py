"""Guidance in only the first part of the steps (guidance_until), with a guider as in custom sampling nodes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from ...settings import SamplingSettings
from . import host


def guided_above(sigmas: Sequence[float], until: float) -> float:
    """Noise level above which guidance is on: the first round(until * steps) steps start above it, the others below.

    sigmas: decreasing, one more than there are steps. until: share of the steps, 0..1. A noise level is used rather
    than the step number, since some samplers call the model twice per step. The level is a hundredth of a step above
    the first step without guidance, so that rounding does not matter; infinite if no step is guided.
    """
    guided = round(until * (len(sigmas) - 1))
    if not guided:
        return math.inf
    before, after = float(sigmas[guided - 1]), float(sigmas[guided])
    return after + 0.01 * (before - after)


def sample(patcher: Any, noise: torch.Tensor, settings: SamplingSettings, *given: Any) -> torch.Tensor:
    """Like `host.sample`, but with guidance only in the first `settings.guidance_until` (a share) of the steps.

    The other steps run at cfg 1: one forward per prompt, except with samplers and patches that need the negative
    prompt at any cfg (euler_cfg_pp).
    """
    return host.sample_guided(
        patcher, noise, settings, *given, lambda sigmas: guided_above(sigmas, settings.guidance_until)
    )
