"""Finish Candidates: draw in full the drafts that are in pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...dpo_core.backends.comfyui import BATCH_INVARIANT, model_family
from ...dpo_core.errors import UserError
from ...dpo_core.loop.drafts import finish_set
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.sampling.pool import photos_of
from ..host.runs import NodeProgress, mark
from ..sockets import Candidates, Pairs
from .sample import backend_for, drawn_by


def finish_candidates(
    model: Any, clip: Any, vae: Any, handle: Pairs, steps: int | None, progress: NodeProgress
) -> tuple[Candidates, np.ndarray, str]:
    """Draw the drafts in these pairs with `steps` steps: (handle, one picture of each prompt, summary).

    steps: None for those of the model's family. Pictures: uint8 [n, H, W, 3], n at most 64. Raises UserError if the
    drafts have as many steps or more or hold candidates of a round before, if the sampler adds noise, or if another
    MODEL drew the drafts.
    """
    drafts, steps = handle.scored.candidates, steps or model_family(model).steps.value
    if drafts.settings.candidate_steps:
        raise UserError(
            f"these drafts were drawn with candidate_steps {drafts.settings.candidate_steps}, which makes candidates "
            "cheap in another way: set candidate_steps to 0 on Sample Candidates, or leave Finish Candidates out."
        )
    if drafts.settings.earlier_rounds:
        raise UserError(
            "these drafts hold candidates of a round before (the link earlier of Sample Candidates), which would not "
            "be drawn in full: unlink earlier, or leave Finish Candidates out."
        )
    if wrong := drafts_refused(drafts.settings.steps, steps, drafts.sampler.name):
        raise UserError(wrong)
    backend = backend_for(model, clip, vae, drafts, progress)
    if drawn_by(backend, drafts) != drafts.set_name:
        raise UserError(
            "these drafts were drawn by another MODEL: connect the MODEL of the Sample Candidates that drew them."
        )
    settings = drafts.settings.model_copy(update={"steps": steps})
    name = f"finished_{mark(drafts.set_name, handle.name, settings.described())}"
    with RunFolder(drafts.folder) as run:
        photos = photos_of(drafts.concept, settings)
        drawn_with = settings.of_candidates()
        finish_set(run, drafts.set_name, handle.name, name, backend, drawn_with, progress, photos=photos)
        drawn = run.candidates(name)
        first = list({c.prompt_index: c.position for c in reversed(drawn)}.values())[::-1]
        count = len(run.candidates(drafts.set_name))
        said = (
            f"{len(drawn)} of {count} drafts are in pairs and were drawn in full, "
            f"in {steps} steps instead of {drafts.settings.steps}."
        )
        return replace(drafts, set_name=name, settings=settings), run.images(name, first[:64]), said


def beside_drafts(draft_steps: int, candidate_steps: int, earlier_rounds: int) -> str | None:
    """Why a loop's drafts do not go with its other ways to draw for less, or None where it has no other."""
    others = {"candidate_steps": candidate_steps, "earlier_rounds": earlier_rounds}
    for name, value in others.items():
        if value:
            return (
                f"draft_steps is {draft_steps} and {name} {value}: these are two ways to draw for less. Set one of "
                "them to 0."
            )
    return None


def drafts_refused(draft_steps: int, steps: int, sampler: str) -> str | None:
    """Why drafts with these settings are useless, or None if they are not."""
    if draft_steps >= steps:
        return (
            f"the drafts have {draft_steps} steps and the finished pictures would have {steps}: "
            "set fewer steps for the drafts, usually a third."
        )
    if sampler not in BATCH_INVARIANT:
        return (
            f"sampler {sampler} adds noise while sampling, so a draft of few steps shows another picture than the "
            f"finished one. Choose one of {', '.join(BATCH_INVARIANT)}, or draw without drafts."
        )
    return None
