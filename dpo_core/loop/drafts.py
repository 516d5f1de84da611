"""Drafts: draws every candidate in few steps, and in full only those that are in a pair of drafts.

A sampler that adds no noise follows one path from a noise to its image, and few steps follow that path roughly. A draft
from a candidate's own noise therefore shows nearly what the candidate will show, at a fraction of the cost. It predicts
a candidate's scores far better than the x0 predicted part-way, which after as many steps is a blur: at a third of the
steps the rewards of drafts and images correlate by .93 in the toybox, those of predicted x0 and images by .73
(docs/method.md).

The drafts are a set of their own, scored and paired by the same rule as the images. A candidate in no pair of drafts is
not drawn in full, so no prompt gets more full images than its pairs need. The pairs used for training are chosen again,
from the scores of the full images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ..axes import AXES
from ..crew import ALONE, Crew
from ..pairs.build import check_pairs
from ..progress import Progress, silent
from ..protocols import TextToImage
from ..records import Candidate
from ..run.folder import RunFolder
from ..sampling.pool import Photos, in_batches
from ..sampling.sets import draw_set
from ..scoring.sets import axis_scores
from ..settings import SamplingSettings
from ..statistics import standardise

DOUBTFUL = 0.5
"""Below this correlation between the scores of drafts and images, drafts predict the scores too poorly."""


def drafting(settings: SamplingSettings) -> SamplingSettings:
    """Sampling settings of a draft: `draft_steps` steps, everything else unchanged."""
    return settings.model_copy(update={"steps": settings.draft_steps, "draft_steps": 0})


def in_pairs(run: RunFolder, pairs_name: str) -> list[int]:
    """Positions of the candidates that are in a pair, each once, in rising order."""
    return sorted({position for pair in run.pairs(pairs_name) for position in (pair.winner, pair.loser)})


def finish_plan(drafts: Sequence[Candidate], positions: Sequence[int], chunk_size: int) -> list[Candidate]:
    """The drafts at `positions`, planned as a set of their own: same prompts and seeds, new positions and batches."""
    return in_batches([replace(drafts[p], position=i) for i, p in enumerate(positions)], chunk_size)


def finish_set(
    run: RunFolder,
    drafts: str,
    pairs_name: str,
    set_name: str,
    model: TextToImage,
    settings: SamplingSettings,
    progress: Progress = silent,
    crew: Crew = ALONE,
    photos: Photos | None = None,
) -> None:
    """Draw in full, as the set `set_name`, the candidates of the set `drafts` that are in the pairs `pairs_name`.

    The choice is stored as the fact "finished_<set_name>" before the first image is drawn, so that a resumed set stays
    the same even under another pair rule. photos: those of the drafts. Raises NoPairs where there is no pair.
    """
    fact = f"finished_{set_name}"
    if (kept := run.fact(fact)) is None:
        check_pairs(run, pairs_name)
        run.set_fact(fact, kept := {"drafts": drafts, "positions": in_pairs(run, pairs_name)})
    planned = finish_plan(run.candidates(kept["drafts"]), kept["positions"], settings.chunk_size)
    draw_set(run, set_name, model, planned, settings, progress, compared=True, crew=crew, photos=photos)


@dataclass(frozen=True)
class Told:
    """How well drafts predicted the scores of the finished images.

    `drafted`, `finished`: numbers of candidates. `fidelity`, `alignment`: correlation (-1..1) of draft and image
    scores, within prompts, over the finished candidates; None where one side does not vary.
    """

    drafted: int
    finished: int
    fidelity: float | None
    alignment: float | None

    @property
    def doubtful(self) -> bool:
        return any(r is not None and r < DOUBTFUL for r in (self.fidelity, self.alignment))

    def sentence(self) -> str:
        """Counts and correlations in words, with a remedy where drafts predicted the scores poorly."""
        told = ", ".join(
            f"{axis} {r:.2f}" for axis, r in zip(AXES, (self.fidelity, self.alignment), strict=True) if r is not None
        )
        said = f"{self.finished} of {self.drafted} candidates are in pairs of drafts and were drawn in full"
        said += f"; correlation between scores of drafts and of pictures: {told}." if told else "."
        if self.doubtful:
            said += f" Below {DOUBTFUL:g} drafts predict too little: use more draft steps, or none."
        return said


def told(run: RunFolder, set_name: str, axes: Sequence[Sequence[str]], how: str) -> Told | None:
    """Measure how well drafts predicted the scores of the set that was chosen by them; None without drafts.

    `axes`: names of the reward scorers of fidelity, and those of alignment. None also where the drafts lack scores by
    these scorers. Stored as the fact "told_<set_name>".
    """
    kept = run.fact(f"finished_{set_name}")
    if kept is None or not all(run.scores(kept["drafts"], name) for names in axes for name in names):
        return None
    finished = run.candidates(set_name)
    prompt_of = np.asarray([c.prompt_index for c in finished])
    found = []
    for names in axes:
        before, after = (axis_scores(run, drawn, names, how) for drawn in (kept["drafts"], set_name))
        before = before[kept["positions"]]
        both = ~(np.isnan(before) | np.isnan(after))
        found.append(_correlation(*(standardise(values[both], prompt_of[both]) for values in (before, after))))
    result = Told(len(run.candidates(kept["drafts"])), len(finished), *found)
    run.set_fact(f"told_{set_name}", {**asdict(result), "doubtful": result.doubtful, "sentence": result.sentence()})
    return result


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Correlation of centred values, float [n] each; None where one side does not vary."""
    both = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / both if both > 0 else None
