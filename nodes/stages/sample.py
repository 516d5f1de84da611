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


def sampling_of(widgets: Mapping[str, Any], earlier: Candidates | None = None) -> tuple[SamplingSettings, Sampler]:
    """The core's settings and the ComfyUI-only ones, from the widgets of a sampling node; some may be auto.

    earlier: candidates of the round before; without them the widget earlier_rounds has no effect.
    """
    rounds = 0 if earlier is None else widgets.get("earlier_rounds") or 1
    settings = settings_of_widgets(SamplingSettings, {**widgets, "earlier_rounds": rounds})
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
    settings, the LoRA for candidates, and the earlier sets. Pictures: uint8 [n, H, W, 3], n at most 64. Raises
    UserError for a LoRA that is gone or does not fit, and for earlier candidates that cannot join.
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
        check_earlier(run, handle, backend)
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
            before=[earlier.set_name for earlier in earlier_of(handle)],
        )
        shown = list({c.prompt_index: c.position for c in reversed(run.candidates(name))}.values())[::-1]
        return replace(handle, set_name=name), run.images(name, shown[:64])


def earlier_of(handle: Candidates) -> list[Candidates]:
    """The sets of rounds before whose candidates join, the latest first: `settings.earlier_rounds` of them at most."""
    found: list[Candidates] = []
    before = handle.earlier
    while before is not None and len(found) < handle.settings.earlier_rounds:
        found.append(before)
        before = before.earlier
    return found


def check_earlier(run: RunFolder, handle: Candidates, backend: ComfyTextToImage) -> None:
    """Raises UserError where the earlier candidates of a handle, with settled settings, cannot join its fresh ones."""
    for earlier in earlier_of(handle):
        if earlier.folder != handle.folder:
            raise UserError(
                f"the earlier candidates are of run {earlier.folder.name!r} and these of {handle.folder.name!r}: give "
                "both Sample Candidates nodes the same run_name."
            )
        sizes = [f"{c.settings.width}x{c.settings.height}" for c in (earlier, handle)]
        shapes = run.latents(earlier.set_name, [0]).shape[1:], backend.latent_shape
        if sizes[0] != sizes[1] or tuple(shapes[0]) != tuple(shapes[1]):
            raise UserError(
                f"the earlier candidates are {sizes[0]} (latents {list(shapes[0])}) and these {sizes[1]} (latents "
                f"{list(shapes[1])}), so they cannot be trained on together: draw both with one model and size."
            )
        if not {c.prompt for c in run.candidates(earlier.set_name)} & set(handle.prompts.train):
            raise UserError(
                "the earlier candidates are of other prompts, so none of them can join: link Sample Candidates of the "
                "same prompts to earlier, or nothing."
            )


def drawn_by(backend: ComfyTextToImage, handle: Candidates, lora: CandidateLora | None = None) -> str:
    """Name of the set of this model, the handle's prompts and settings, and the LoRA for candidates."""
    # Round 0, no LoRA and no earlier set are left out: names stay those of runs from before these counted.
    later = [*([handle.round] if handle.round else []), *([lora.mark] if lora is not None else [])]
    later += [earlier.set_name for earlier in earlier_of(handle)]
    return "candidates_" + mark(
        backend.fingerprint, handle.prompts.train, handle.settings.described(), repr(handle.sampler), *later
    )
