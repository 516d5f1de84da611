"""Drafts that stand in pairs, drawn in full."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...dpo_core.backends.comfyui import BATCH_INVARIANT
from ...dpo_core.errors import UserError
from ...dpo_core.loop.drafts import finish_set
from ...dpo_core.run.folder import RunFolder
from ..host.runs import NodeProgress, mark
from ..sockets import Candidates, Pairs
from .sample import backend_for, drawn_by


def finish_candidates(
    model: Any, clip: Any, vae: Any, handle: Pairs, steps: int, progress: NodeProgress
) -> tuple[Candidates, np.ndarray, str]:
    """Draw in full, in `steps` steps, the drafts that stand in these pairs: (their handle, one picture of each prompt,
    what was done).

    Raises UserError for drafts of as many steps, of a sampler that does not come near its picture in few of them, or of
    another MODEL.
    """
    drafts = handle.scored.candidates
    if wrong := drafts_refused(drafts.settings.steps, steps, drafts.sampler.name):
        raise UserError(wrong)
    backend = backend_for(model, clip, vae, drafts, progress)
    if drawn_by(backend, drafts) != drafts.set_name:
        raise UserError(
            "these drafts were drawn by another MODEL: connect the one that drew them, in Sample Candidates."
        )
    settings = drafts.settings.model_copy(update={"steps": steps})
    name = f"finished_{mark(drafts.set_name, handle.name, settings.described())}"
    with RunFolder(drafts.folder) as run:
        finish_set(run, drafts.set_name, handle.name, name, backend, settings, progress)
        drawn = run.candidates(name)
        first = list({c.prompt_index: c.position for c in reversed(drawn)}.values())[::-1]
        count = len(run.candidates(drafts.set_name))
        said = f"{len(drawn)} of {count} drafts stand in pairs and are drawn in full, in {steps} steps in place of {drafts.settings.steps}."
        return replace(drafts, set_name=name, settings=settings), run.images(name, first[:64]), said


def drafts_refused(draft_steps: int, steps: int, sampler: str) -> str | None:
    """Why drafts of so many steps would tell nothing, or spare nothing; None where they are of use."""
    if draft_steps >= steps:
        return f"the drafts have {draft_steps} steps and their pictures would have {steps}: draft in fewer, a third of them is usual."
    if sampler not in BATCH_INVARIANT:
        return (
            f"sampler {sampler} adds noise of its own, so that a draft in few steps shows another picture than its noise gives in many. "
            f"Take one of {', '.join(BATCH_INVARIANT)}, or draw without drafts."
        )
    return None
