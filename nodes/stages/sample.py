"""Sample Candidates: draw candidates with a MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...dpo_core.backends.comfyui import ComfyTextToImage, model_family
from ...dpo_core.errors import UserError
from ...dpo_core.families import sampling_for
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.sampling.pool import check_pool, photos_of
from ...dpo_core.sampling.sets import sample_set
from ...dpo_core.settings import SamplingSettings, settings_of_widgets
from ...dpo_core.training.lora_files import lora_mark
from ..host.lora_files import check_candidate_lora, lora_path
from ..host.runs import NodeProgress, mark, remember
from ..sockets import AUTO, NONE, Candidates, Sampler
from .rounds import plan_rounds


def sampling_of(widgets: Mapping[str, Any]) -> tuple[SamplingSettings, Sampler]:
    """The core's settings and the ComfyUI-only ones, from the widgets of a sampling node; some may be auto."""
    settings = settings_of_widgets(SamplingSettings, widgets)
    return settings, Sampler(widgets["sampler_name"], widgets["scheduler"], widgets["negative"])


@dataclass(frozen=True)
class CandidateLora:
    """A LoRA file that is on while candidates are drawn, and at no other time."""

    file: Path
    strength: float

    @property
    def mark(self) -> str:
        """Hash of its content, and its strength."""
        return lora_mark(self.file, self.strength)


def candidate_lora(widgets: Mapping[str, Any]) -> CandidateLora | None:
    """The LoRA for candidates that a node's widgets name, or None.

    Raises UserError for one that is gone, and without candidate_steps: values that come by a link are known only here.
    """
    name = widgets.get("candidate_lora")
    if name in (None, NONE):
        return None
    if wrong := check_candidate_lora(name, widgets.get("candidate_steps") or 0):
        raise UserError(wrong)
    strength = widgets.get("candidate_lora_strength")
    return CandidateLora(lora_path(name), 1.0 if strength is None else strength)


def settled(handle: Candidates, model: Any) -> Candidates:
    """The handle with the values of the model's family where settings and sampler are auto."""
    family, sampler = model_family(model), handle.sampler
    named = {"name": family.sampler.value, "scheduler": family.scheduler.value}
    found = {field: value for field, value in named.items() if getattr(sampler, field) == AUTO}
    return replace(handle, settings=sampling_for(handle.settings, family), sampler=replace(sampler, **found))


def backend_for(model: Any, clip: Any, vae: Any, candidates: Candidates, progress: NodeProgress) -> ComfyTextToImage:
    """The backend that draws these candidates with the model."""
    s, sampler = candidates.settings, candidates.sampler
    watch = progress.watch(model)
    return ComfyTextToImage(
        model, clip, vae, s.width, s.height, sampler.name, sampler.scheduler, sampler.negative, watch
    )


def draw_candidates(
    model: Any, clip: Any, vae: Any, handle: Candidates, progress: NodeProgress, lora: CandidateLora | None = None
) -> tuple[Candidates, np.ndarray]:
    """Draw the missing candidates of a set: (its handle, the first picture of each prompt).

    The handle's settings may be auto; those of the result are settled. The set's name is a hash of model, prompts,
    settings, and the LoRA for candidates. Pictures: uint8 [n, H, W, 3], n at most 64. Raises UserError for a LoRA that
    is gone or does not fit.
    """
    handle = settled(handle, model)
    backend = backend_for(model, clip, vae, handle, progress)
    settings, prompts = handle.settings, handle.prompts.train
    photos = photos_of(handle.concept, settings)
    check_pool(backend, settings, photos)
    if lora is not None:
        backend.set_candidate_lora(lora.file, lora.strength)
    name = drawn_by(backend, handle, lora)
    with RunFolder(handle.folder) as run:
        remember(handle.folder)
        plan_rounds(progress, handle, backend, begun=bool(run.chunks(name)))
        sample_set(
            run,
            name,
            backend,
            prompts,
            settings.candidates_per_prompt,
            settings.of_candidates(),
            settings.seed,
            handle.round,
            progress,
            compared=True,
            photos=photos,
        )
        shown = list({c.prompt_index: c.position for c in reversed(run.candidates(name))}.values())[::-1]
        return replace(handle, set_name=name), run.images(name, shown[:64])


def drawn_by(backend: ComfyTextToImage, handle: Candidates, lora: CandidateLora | None = None) -> str:
    """Name of the set of this model, the handle's prompts and settings, and the LoRA for candidates."""
    # Round 0 and no LoRA are left out: names stay those of runs from before rounds counted.
    later = [*([handle.round] if handle.round else []), *([lora.mark] if lora is not None else [])]
    return "candidates_" + mark(
        backend.fingerprint, handle.prompts.train, handle.settings.described(), repr(handle.sampler), *later
    )
