"""Score Fidelity/Alignment: score candidates by one scorer or several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ...dpo_core.axes import axis_of
from ...dpo_core.run.folder import RunFolder
from ...dpo_core.scoring.sets import axis_scores, score_set
from ...metrics.sets import reward_scorers
from ..host.runs import NodeProgress
from ..sockets import Candidates, Scored


def named(scorer: Any) -> Any:
    """Rename the scorer by its fingerprint, so that scores of two scorers are stored side by side."""
    scorer.name = f"{scorer.name}_{scorer.fingerprint[:12]}"
    return scorer


Cloud = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Fidelity [n], alignment [n] and the prompt of each candidate [n]."""


def score_candidates(candidates: Candidates, embedders: list[Any], progress: NodeProgress) -> tuple[Scored, Cloud]:
    """Score the candidates that have no scores yet: (handle, scores by the first embedder)."""
    scorers = reward_scorers(embedders, candidates.concept)
    axis = [axis_of(scorer.name) for scorer in scorers]
    names = [named(scorer).name for scorer in scorers]
    fidelity, alignment = (
        tuple(n for n, a in zip(names, axis, strict=True) if a == which) for which in ("fidelity", "alignment")
    )
    with RunFolder(candidates.folder) as run:
        score_set(run, candidates.set_name, scorers, progress)
        scored = Scored(candidates, fidelity, alignment)
        return scored, scores_of(run, replace(scored, fidelity=fidelity[:1], alignment=alignment[:1]))


def scores_of(run: RunFolder, scored: Scored, how: str = "worst") -> Cloud:
    """The scores as the pair rule uses them.

    An axis with several scorers has their mean or worst (`how`), in standard deviations.
    """
    name = scored.candidates.set_name
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(name)])
    fidelity, alignment = (axis_scores(run, name, names, how) for names in (scored.fidelity, scored.alignment))
    return fidelity, alignment, prompt_of
