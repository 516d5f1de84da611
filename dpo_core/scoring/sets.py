"""The scoring stage: any object that fits the Scorer protocol, over any set of candidates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..axes import combine, in_units_of
from ..errors import UserError
from ..progress import Progress, silent
from ..protocols import Scorer
from ..records import Candidate
from ..run.folder import RunFolder

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
    """Kept scores of several sets, float64 [n] each, by one scorer.

    Raises UserError where a changed scorer of that name made some.
    """
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
        raise UserError(
            f"scorer {scorer.name!r} gave {values[int(bad[0])]} for {picture}. Look at the picture, or use another scorer."
        )


def missing_positions(run: RunFolder, set_name: str, scorer: str, fingerprint: str) -> np.ndarray:
    """Positions of a set without a score under this fingerprint."""
    kept = run.scores(set_name, scorer, fingerprint)
    return np.asarray([c.position for c in run.candidates(set_name) if c.position not in kept], int)


def axis_scores(run: RunFolder, set_name: str, names: Sequence[str], how: str) -> np.ndarray:
    """The kept scores of a set on one axis, float64 [n]; of several scorers `combine`d, on the scale of the first, so
    that rules which take cosines have them too. Raises UserError where one is missing."""
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(set_name)])
    try:
        kept = [run.score_array(set_name, name) for name in names]
    except KeyError as missing:
        raise UserError(
            f"candidate {missing} of {set_name} lacks a score by {' or '.join(names)}: score the set first."
        ) from missing
    found = combine(kept, prompt_of, how)
    return found if len(kept) == 1 else in_units_of(kept[0], found, prompt_of)
