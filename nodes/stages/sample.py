"""Candidates drawn by a MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...dpo_core.backends.comfyui import ComfyTextToImage
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.sampling.sets import sample_set
from ...dpo_core.settings import SamplingSettings, from_widgets
from ..host.runs import NodeProgress, mark, remember
from ..sockets import Candidates, Sampler


def sampling_of(widgets: Mapping[str, Any]) -> tuple[SamplingSettings, Sampler]:
    """The core's settings, and what only ComfyUI knows, from a sampling node's widgets."""
    settings = SamplingSettings(**from_widgets(SamplingSettings, widgets))
    return settings, Sampler(widgets["sampler_name"], widgets["scheduler"], widgets["negative"])


def backend_for(model: Any, clip: Any, vae: Any, candidates: Candidates, progress: NodeProgress) -> ComfyTextToImage:
    """The model as these candidates are drawn with it."""
    s, sampler = candidates.settings, candidates.sampler
    watch = progress.watch(model)
    return ComfyTextToImage(
        model, clip, vae, s.width, s.height, sampler.name, sampler.scheduler, sampler.negative, watch
    )


def draw_candidates(
    model: Any, clip: Any, vae: Any, handle: Candidates, progress: NodeProgress
) -> tuple[Candidates, np.ndarray]:
    """Draw what is missing of the set that model, prompts and settings name; returns its handle and one picture of each
    prompt.
    """
    backend = backend_for(model, clip, vae, handle, progress)
    settings, prompts = handle.settings, handle.prompts.train
    name = drawn_by(backend, handle)
    with RunFolder(handle.folder) as run:
        remember(handle.folder)
        sample_set(
            run,
            name,
            backend,
            prompts,
            settings.candidates_per_prompt,
            settings,
            settings.seed,
            handle.round,
            progress,
            compared=True,
        )
        shown = [i * settings.candidates_per_prompt for i in range(len(prompts))]
        return replace(handle, set_name=name), run.images(name, shown[:64])


def drawn_by(backend: ComfyTextToImage, handle: Candidates) -> str:
    """The name of the set that this model draws by the handle's prompts and settings."""
    later = [handle.round] if handle.round else []  # the first round's sets are named as before there was a number
    return "candidates_" + mark(
        backend.fingerprint, handle.prompts.train, handle.settings.described(), repr(handle.sampler), *later
    )
