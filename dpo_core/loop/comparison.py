"""Draws, scores and ranks several models on the held-out prompts of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..evaluation.compare import Comparison, compare
from ..json_values import to_json
from ..protocols import TextToImage

if TYPE_CHECKING:
    from .rounds import Loop


def compare_models(
    loop: Loop, sets: Mapping[str, str], models: Mapping[str, AbstractContextManager[TextToImage]]
) -> Comparison:
    """Draw what is missing of each set, score it, and rank; stores the facts "comparison" and "compared".

    sets: set name by model name, `compare.WITHOUT` among them; models: by set name, see `HeldOutPlan.measure`. At
    least two pictures of a prompt are drawn, because a gain is in units of their spread.
    """
    settings = loop.settings
    plan = loop.held_out(max(2, settings.evaluation.seeds_per_prompt))
    measured = plan.measure(loop.run, models, loop.progress)
    scores = {name: measured.of(kept) for name, kept in sets.items()}
    found = compare(scores, measured.prompt_of, settings.stop, settings.evaluation.bootstrap)
    loop.run.set_fact("comparison", to_json(found))
    loop.run.set_fact("compared", dict(sets))
    return found


def whole(loop: Loop, name: str) -> bool:
    """Whether every picture of a set is there already, so that nothing has to be loaded to draw it."""
    wanted = len(loop.prompts.held_out) * max(2, loop.settings.evaluation.seeds_per_prompt)
    return len(loop.run.candidates(name)) == wanted
