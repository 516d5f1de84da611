"""Scoring stage: score the candidates of a set with any object that fits the Scorer protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..axes import combine, in_units_of
from ..crew import ALONE, Crew
from ..errors import UserError
from ..progress import Progress, silent
from ..protocols import Scorer
from ..records import Candidate
from ..run.folder import RunFolder

BLOCK = 64
"""Smallest number of pictures in a block, except for the last."""


def _blocks(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Blocks of about 64 candidates with whole prompts: diversity scorers need all pictures of a prompt."""
    blocks: list[list[Candidate]] = [[]]
    for i, candidate in enumerate(candidates):
        starts_prompt = i and candidate.prompt_index != candidates[i - 1].prompt_index
        if starts_prompt and len(blocks[-1]) >= BLOCK:
            blocks.append([])
        blocks[-1].append(candidate)
    return blocks


def score_set(
    run: RunFolder, set_name: str, scorers: Sequence[Scorer], progress: Progress = silent, crew: Crew = ALONE
) -> None:
    """Score every candidate of a set with every scorer, block by block, and store the scores in the run.

    Stored scores with the same fingerprint are not computed again. crew: who scores. Raises UserError when a score is
    not finite, except for NaN of a scorer that may give no score (`unscored`, see `protocols.Scorer`).
    """
    blocks = _blocks(run.candidates(set_name))
    missing = [set(missing_positions(run, set_name, s.name, s.fingerprint).tolist()) for s in scorers]
    dues = [_due(block, scorers, missing) for block in blocks]
    by_name = {s.name: s for s in scorers}

    def score_one(job: tuple[Sequence[str], np.ndarray, Sequence[str]]) -> Iterator[np.ndarray]:
        names, images, prompts = job
        return (by_name[name].score(images, prompts) for name in names)

    jobs = (
        ([s.name for s in due], run.images(set_name, [c.position for c in block]), [c.prompt for c in block])
        for block, due in zip(blocks, dues, strict=True)
        if due
    )
    scored = crew.score(jobs, score_one)
    for number, (block, due) in enumerate(zip(blocks, dues, strict=True)):
        for scorer, values in zip(due, next(scored) if due else [], strict=True):
            _check(values, scorer, block, run, set_name)
            run.add_scores(set_name, scorer.name, scorer.fingerprint, [c.position for c in block], values)
        progress(f"score {set_name}", number + 1, len(blocks))


def _due(block: Sequence[Candidate], scorers: Sequence[Scorer], missing: Sequence[set[int]]) -> list[Scorer]:
    """The scorers of which some score of a block is missing. missing: positions without a score, for each scorer."""
    positions = [c.position for c in block]
    return [s for s, absent in zip(scorers, missing, strict=True) if not absent.isdisjoint(positions)]


def comparable(run: RunFolder, sets: Sequence[str], scorer: str) -> list[np.ndarray]:
    """Stored scores of several sets by one scorer, float64 [n] each.

    Raises UserError when they were made by different versions of that scorer.
    """
    arrays = [run.score_array(name, scorer) for name in sets]
    if len(set().union(*(run.score_marks(name, scorer) for name in sets))) > 1:
        raise UserError(
            f"the sets to compare in {run.path} ({', '.join(sets)}) were scored by two different scorers named "
            f"{scorer!r}: score all of them again with one scorer, or start again in a new output folder."
        )
    return arrays


def _check(values: np.ndarray, scorer: Scorer, block: Sequence[Candidate], run: RunFolder, set_name: str) -> None:
    """Raises UserError, with the picture's path, when a score is not finite, nor NaN where the scorer may give none."""
    allowed = np.isnan(values) if getattr(scorer, "unscored", "") else np.zeros(len(values), bool)
    bad = np.nonzero(~(np.isfinite(values) | allowed))[0]
    if len(bad):
        picture = run.image_path(set_name, block[int(bad[0])].position)
        raise UserError(
            f"scorer {scorer.name!r} gave {values[int(bad[0])]} for {picture}. "
            "Look at the picture, or use another scorer."
        )


def missing_positions(run: RunFolder, set_name: str, scorer: str, fingerprint: str) -> np.ndarray:
    """Positions of the candidates without a score of this scorer and fingerprint, int [m]."""
    stored = run.scores(set_name, scorer, fingerprint)
    return np.asarray([c.position for c in run.candidates(set_name) if c.position not in stored], int)


def axis_scores(run: RunFolder, set_name: str, names: Sequence[str], how: str) -> np.ndarray:
    """The stored scores of a set on one axis, float64 [n]; NaN where one of the scorers gave the picture no score.

    Several scorers are combined (`how`, see `axes.combine`) and put on the scale of the first one, so that rules that
    need cosines get them; means and spreads are those of the pictures with all scores. Raises UserError when a score is
    missing.
    """
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(set_name)])
    try:
        stored = [run.score_array(set_name, name) for name in names]
    except KeyError as missing:
        raise UserError(
            f"candidate {missing} of {set_name} lacks a score by {' or '.join(names)}: score the set first."
        ) from missing
    if len(stored) == 1:
        return stored[0]
    known, found = ~np.isnan(stored).any(axis=0), np.full(len(prompt_of), np.nan)
    if known.any():
        kept = [values[known] for values in stored]
        found[known] = in_units_of(kept[0], combine(kept, prompt_of[known], how), prompt_of[known])
    return found
