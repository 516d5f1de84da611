"""How a scorer's order of the candidates of a prompt agrees with the oracle's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...dpo_core.run.folder import RunFolder
from ..common.concepts import truth_of_candidates
from .draws import drawn

PHOTOS = ("one background", "several backgrounds")
WAYS = ("picture", "patches", "patches, uniform", "picture, masks", "patches, masks")
"""What is compared; with the masks given, or without them. Uniform: no weights by recurrence, the control."""
TRUTHS = ("subject", "all right", "background")
"""Subject: body and belly right, 0 to 2. All right, and the background: 0 or 1."""


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 on, float64 [n]; equal values share the mean of theirs. 5 1 5 gives 2.5 1 2.5."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's rank correlation (-1..1) of two arrays [n], ties by mean ranks; NaN where one does not vary."""
    a, b = (ranks(v) - (len(v) + 1) / 2 for v in (one, other))
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm else float("nan")


def within_prompts(scores: np.ndarray, truth: np.ndarray, prompt_of: np.ndarray) -> list[float]:
    """Rank correlation of scores with the truth within each prompt; prompts where one does not vary are left out."""
    found = [spearman(scores[prompt_of == p], truth[prompt_of == p]) for p in np.unique(prompt_of)]
    return [value for value in found if not np.isnan(value)]


def scores_of(toy: Any, images: np.ndarray, sharpness: Sequence[float]) -> dict[str, np.ndarray]:
    """Fidelity of images uint8 [n, H, W, 3] to the photos of `toy`, by each of WAYS, by the toybox's reward model.

    sharpness: of the recurrence; of more than one each is a way of its own, "patches, <sharpness>".
    """
    from ...metrics.embedders import load_embedder
    from ...metrics.patches import PatchFidelityScorer, patch_scores, patches_of, recurrence_weights
    from ...metrics.scorers import FidelityScorer
    from ...toybox.models import weights_folder

    embedder, photos = load_embedder(weights_folder("reward")), toy.references
    scorers = {
        "picture": FidelityScorer(embedder, photos),
        "patches": PatchFidelityScorer(embedder, photos),
        "picture, masks": FidelityScorer(embedder, photos, masks=toy.masks),
        "patches, masks": PatchFidelityScorer(embedder, photos, masks=toy.masks),
    }
    found = {way: scorer.score(images, [""] * len(images)) for way, scorer in scorers.items()}
    pictures, own = patches_of(embedder, images), patches_of(embedder, photos)
    found["patches, uniform"] = patch_scores(pictures, own, np.full(own.shape[:2], 1 / own.shape[1]))
    for value in sharpness:
        found[f"patches, {value:g}"] = patch_scores(pictures, own, recurrence_weights(own, value))
    return found


def run_concept(seed: int, out: Path, sharpness: Sequence[float]) -> dict:
    """Rank correlations within prompts of one concept, {photos: {way: {truth: [one a prompt]}}}."""
    from ...toybox.concepts import concept_from_seed, in_several_places
    from ...toybox.models import oracle_scorers

    toy = concept_from_seed(seed)
    with RunFolder(drawn(seed, out)) as run:
        images, prompt_of = run.images("round_0"), np.asarray([c.prompt_index for c in run.candidates("round_0")])
        oracle = truth_of_candidates(run, "round_0", oracle_scorers(toy))
    truths = {
        "subject": oracle["oracle_body"] + oracle["oracle_belly"],
        "all right": oracle["oracle_all_right"],
        "background": oracle["oracle_background"],
    }
    views: Mapping[str, Callable[[], Any]] = {PHOTOS[0]: lambda: toy, PHOTOS[1]: lambda: in_several_places(toy)}
    return {
        photos: {
            way: {name: within_prompts(scores, truth, prompt_of) for name, truth in truths.items()}
            for way, scores in scores_of(view(), images, sharpness).items()
        }
        for photos, view in views.items()
    }
