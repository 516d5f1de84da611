"""Several scorers on one axis: their names, and how their scores combine into one for the pair rule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from .errors import UserError
from .statistics import prompt_means, spread_within, standardise

AXES = ("fidelity", "alignment")
_NAME = re.compile(r"(fidelity|alignment)(?:_([2-9]|[1-9][0-9]+))?")


def axis_of(name: str) -> str | None:
    """The axis of a reward scorer by its name: "fidelity" for "fidelity", "fidelity_2", ...; None for other names."""
    found = _NAME.fullmatch(name)
    return found[1] if found else None


def names_of(axis: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that belong to an axis, in order of their number: "fidelity", "fidelity_2", "fidelity_10"."""
    return tuple(sorted((n for n in names if axis_of(n) == axis), key=lambda n: int(_NAME.fullmatch(n)[2] or 1)))


def combine(scores: Sequence[np.ndarray], prompt_of: np.ndarray, how: str) -> np.ndarray:
    """Combine the scores of an axis's scorers (each float [n]) into one per candidate, float64 [n]; prompt_of: int [n].

    Scores are first converted to standard deviations of the round (`statistics.standardise`), so that no scorer counts
    for more because its values spread wider. "mean": their mean. "worst": their minimum, so that a candidate is as good
    as its strictest scorer says. The scores of a single scorer are returned unchanged. Raises UserError for no scores,
    different numbers of them, a score that is not finite, or another `how`.
    """
    arrays = [np.asarray(values, np.float64) for values in scores]
    if not arrays:
        raise UserError("an axis has no scores: score the candidates with at least one scorer first.")
    if how not in ("mean", "worst"):
        raise UserError(f"combine is {how!r}: it must be mean or worst.")
    if len(arrays) == 1:
        return arrays[0]
    for number, values in enumerate(arrays, 1):
        if len(values) != len(prompt_of):
            raise UserError(
                f"scorer {number} gave {len(values)} scores for {len(prompt_of)} candidates: score all of them first."
            )
        if len(bad := np.nonzero(~np.isfinite(values))[0]):
            raise UserError(
                f"scorer {number} gave candidate {int(bad[0])} {values[bad[0]]}: look at the picture and score again."
            )
    standard = np.stack([standardise(values, prompt_of) for values in arrays])
    return standard.mean(axis=0) if how == "mean" else standard.min(axis=0)


def in_units_of(first: np.ndarray, standard: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """Convert scores in standard deviations (float [n]) to the prompt means and spread of `first` (float [n]).

    For first 1 1 3 3 of one prompt (mean 2, spread 1) and standard -1 0 0 1 the result is 1 2 2 3. Cosines stay within
    -1..1.
    """
    found = prompt_means(first, prompt_of) + spread_within(first, prompt_of) * standard
    return np.clip(found, -1.0, 1.0) if np.abs(first).max(initial=0.0) <= 1 else found
