"""Several scorers on one axis: what they are called, and how their scores become the one that the pair rule takes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from .errors import UserError
from .pairs import prompt_means, standardise
from .run_folder import RunFolder

AXES = ("fidelity", "alignment")
_NAME = re.compile(r"(fidelity|alignment)(?:_([2-9]|[1-9][0-9]+))?")


def axis_of(name: str) -> str | None:
    """The axis of a reward scorer by its name: "fidelity" of "fidelity", "fidelity_2", "fidelity_3", ...; None for other names."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def names_of(axis: str, names: Iterable[str]) -> tuple[str, ...]:
    """Those of `names` that stand on an axis, by their number: "fidelity", "fidelity_2", "fidelity_10"."""
    return tuple(sorted((n for n in names if axis_of(n) == axis), key=lambda n: int(_NAME.fullmatch(n)[2] or 1)))


def combine(scores: Sequence[np.ndarray], prompt_of: np.ndarray, how: str) -> np.ndarray:
    """One score of an axis, float64 [n], from those of its scorers (each float [n]); prompt_of: int [n].

    Each scorer's scores are taken in standard deviations of the round, see `pairs.standardise`, so that no scorer counts for more
    because its numbers spread wider. "mean": their mean. "worst": their minimum, so a candidate is as good as its strictest scorer says.
    A single scorer's scores come back as they are. Raises UserError for no scores, unlike numbers of them, a score that is
    not finite, or another `how`.
    """
    arrays = [np.asarray(values, np.float64) for values in scores]
    if not arrays:
        raise UserError("an axis has no scores: score the candidates by at least one scorer first.")
    if how not in ("mean", "worst"):
        raise UserError(f"combine is {how!r}: it must be mean or worst.")
    if len(arrays) == 1:
        return arrays[0]
    for number, values in enumerate(arrays, 1):
        if len(values) != len(prompt_of):
            raise UserError(f"scorer {number} gave {len(values)} scores for {len(prompt_of)} candidates: score all of them first.")
        if len(bad := np.nonzero(~np.isfinite(values))[0]):
            raise UserError(f"scorer {number} gave candidate {int(bad[0])} {values[bad[0]]}: look at the picture and score again.")
    standard = np.stack([standardise(values, prompt_of) for values in arrays])
    return standard.mean(axis=0) if how == "mean" else standard.min(axis=0)


def in_units_of(first: np.ndarray, standard: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """Scores in standard deviations (float [n]) on the scale of `first` (float [n]): around its mean of each prompt, as wide as it spreads.

    For first 1 1 3 3 of one prompt (mean 2, spread 1) and standard -1 0 0 1: 1 2 2 3. Cosines stay between -1 and 1.
    """
    own = standardise(first, prompt_of)
    means = prompt_means(first, prompt_of)
    spread = float(np.sqrt(np.mean((first - means) ** 2))) if own.any() else 0.0
    found = means + spread * standard
    return np.clip(found, -1.0, 1.0) if np.abs(first).max(initial=0.0) <= 1 else found


def axis_scores(run: RunFolder, set_name: str, names: Sequence[str], how: str) -> np.ndarray:
    """The kept scores of a set on one axis, float64 [n]; of several scorers `combine`d, on the scale of the first, so that rules which take
    cosines have them too. Raises UserError where one is missing."""
    prompt_of = np.asarray([c.prompt_index for c in run.candidates(set_name)])
    try:
        kept = [run.score_array(set_name, name) for name in names]
    except KeyError as missing:
        raise UserError(f"candidate {missing} of {set_name} lacks a score by {' or '.join(names)}: score the set first.") from missing
    found = combine(kept, prompt_of, how)
    return found if len(kept) == 1 else in_units_of(kept[0], found, prompt_of)
