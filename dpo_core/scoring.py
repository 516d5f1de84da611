"""The scoring stage: any object that fits the Scorer protocol, over any set of candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import UserError
from .progress import Progress, silent
from .protocols import Scorer
from .run_folder import Candidate, RunFolder
from .sampling import missing_positions

BLOCK = 64


def _blocks(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Blocks of about 64 pictures, made of whole prompts: scorers of a prompt's diversity need all of it."""
    blocks: list[list[Candidate]] = [[]]
    for i, candidate in enumerate(candidates):
        starts_prompt = i and candidate.prompt_index != candidates[i - 1].prompt_index
        if starts_prompt and len(blocks[-1]) >= BLOCK:
            blocks.append([])
        blocks[-1].append(candidate)
    return blocks


def score_set(run: RunFolder, set_name: str, scorers: Sequence[Scorer], progress: Progress = silent) -> None:
    """Give every candidate of a set a score by every scorer; kept scores of the same fingerprint are not made again.

    Raises UserError when a scorer gives a number that is not finite.
    """
    blocks = _blocks(run.candidates(set_name))
    missing = [set(missing_positions(run, set_name, s.name, s.fingerprint).tolist()) for s in scorers]
    for number, block in enumerate(blocks):
        positions = [c.position for c in block]
        wanting = [s for s, absent in zip(scorers, missing, strict=True) if not absent.isdisjoint(positions)]
        if wanting:
            images = run.images(set_name, positions)
            for scorer in wanting:
                values = scorer.score(images, [c.prompt for c in block])
                _check(values, scorer, block, run, set_name)
                run.add_scores(set_name, scorer.name, scorer.fingerprint, positions, values)
        progress(f"score {set_name}", number + 1, len(blocks))


def comparable(run: RunFolder, sets: Sequence[str], scorer: str) -> list[np.ndarray]:
    """Kept scores of several sets, float64 [n] each, by one scorer. Raises UserError where a changed scorer of that name made some."""
    arrays = [run.score_array(name, scorer) for name in sets]
    if len(set().union(*(run.score_marks(name, scorer) for name in sets))) > 1:
        raise UserError(
            f"two scorers named {scorer!r} scored sets in {run.path} that are to be compared ({', '.join(sets)}): score all of them again "
            "by one, or start again in a new output folder."
        )
    return arrays


def _check(values: np.ndarray, scorer: Scorer, block: Sequence[Candidate], run: RunFolder, set_name: str) -> None:
    bad = np.nonzero(~np.isfinite(values))[0]
    if len(bad):
        picture = run.image_path(set_name, block[int(bad[0])].position)
        raise UserError(f"scorer {scorer.name!r} gave {values[int(bad[0])]} for {picture}. Look at the picture, or use another scorer.")
