"""Variety of a prompt's candidates by the composition of their latents: pure functions for the pair rules.

Composition is what a latent's low frequencies say: where the subject stands, how large, before what. It needs no
further model, and no score follows from it.
"""

from __future__ import annotations

import numpy as np

from ..statistics import standardise

CELLS = 4
"""Cells along each side of the grid that a latent is averaged over."""


def composition(latents: np.ndarray) -> np.ndarray:
    """Low frequencies of latents [n, C, (1,) h, w]: means over a grid of 4 x 4 cells, float64 [n, C * 16].

    Each channel is divided by its standard deviation over all candidates and cells, so that none counts for more by its
    scale; one without spread is 0. Sides that 4 does not divide have cells that differ by one in size.
    """
    whole = np.asarray(latents, np.float64)
    flat = whole.reshape(len(whole), -1, *whole.shape[-2:])
    for axis in (2, 3):
        parts = np.array_split(flat, min(CELLS, flat.shape[axis]), axis)
        flat = np.stack([part.mean(axis) for part in parts], axis)
    flat = flat - flat.mean((0, 2, 3), keepdims=True)
    spread = flat.std((0, 2, 3), keepdims=True)
    return (flat / np.where(spread > 0, spread, 1.0)).reshape(len(flat), -1)


def distances(features: np.ndarray) -> np.ndarray:
    """Euclidean distances of all rows: [k, d] -> [k, k]."""
    return np.linalg.norm(features[:, None] - features[None], axis=-1)


def nearest_pairs(features: np.ndarray, first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Which pairs are among the nearest `share` (0..1) of all pairs of a prompt's candidates: bool [m].

    features: float [k, d] of the prompt's candidates; first, second: int [m], rows of it. At least one pair counts as
    near, and all that are as near as the last one. Distances 1, 2 and 3 of three candidates with share 0.5: the nearest
    two (1.5 rounded up).
    """
    apart = distances(features)
    every = np.sort(apart[np.triu_indices(len(features), 1)])
    limit = every[max(1, int(np.ceil(share * len(every)))) - 1]
    return apart[first, second] <= limit


def better_half(reward: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """Which candidates have at least the median reward of their prompt's candidates, bool [n]."""
    found = np.zeros(len(prompt_of), bool)
    for prompt in np.unique(prompt_of):
        of = prompt_of == prompt
        found[of] = reward[of] >= np.median(reward[of])
    return found


def contributions(features: np.ndarray, prompt_of: np.ndarray) -> np.ndarray:
    """What each candidate adds to the variety of its prompt's candidates, float64 [n].

    The variety of a set is the mean distance of its pairs; a candidate's contribution is that of the set less that of
    the set without it (leave-one-out, as DRAGON's reward of a set, arXiv 2504.15217). 0 for a prompt of fewer than
    three. Of places 0, 0 and 3 on a line: variety 2, without the last one 0, without a first one 3: contributions
    -1, -1 and 2.
    """
    found = np.zeros(len(prompt_of))
    for prompt in np.unique(prompt_of):
        members = np.nonzero(prompt_of == prompt)[0]
        if (count := len(members)) < 3:
            continue
        sums = distances(features[members]).sum(1)
        total = sums.sum() / 2
        without = (total - sums) / ((count - 1) * (count - 2) / 2)
        found[members] = total / (count * (count - 1) / 2) - without
    return found


def varied(reward: np.ndarray, prompt_of: np.ndarray, features: np.ndarray, weight: float) -> np.ndarray:
    """`reward` (standardised, float [n]) with variety, standardised again: in the better half of its prompt a candidate
    gets `weight` times its contribution to the half's variety, in standard deviations.

    Not among all candidates: a wrong one differs from the others, too, and must not gain by it. Nothing is added in a
    half of fewer than three, which the settings refuse and which finished drafts or missing scores may leave.
    """
    good, added = better_half(reward, prompt_of), np.zeros(len(reward))
    added[good] = standardise(contributions(features[good], prompt_of[good]), prompt_of[good])
    return standardise(reward + weight * added, prompt_of)
