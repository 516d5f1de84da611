"""Candidates scored by one embedder or several."""

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
    """The scorer under a name of its own, so that two scorers' scores of one set are kept side by side."""
    scorer.name = f"{scorer.name}_{scorer.fingerprint[:12]}"
    return scorer


Cloud = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Fidelity [n], alignment [n] and the prompt of each candidate [n]."""


def score_candidates(candidates: Candidates, embedders: list[Any], progress: NodeProgress) -> tuple[Scored, Cloud]:
    """Score what is not scored yet, by one embedder or several; returns the handle, and the scores that the first one
    gave.
    """
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
    """As the pair rule takes them: of an axis with several scorers the combined ones (mean or worst), in standard
    deviations.
    """
    name = scored.candidates.set_name
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(name)])
    fidelity, alignment = (axis_scores(run, name, names, how) for names in (scored.fidelity, scored.alignment))
    return fidelity, alignment, prompt_of
