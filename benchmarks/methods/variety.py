"""Variety among the right pictures of a prompt alone: what a method that works loses is no longer mixed with the wrong
pictures that vanish.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...dpo_core.run.folder import RunFolder
from ...metrics.guards import vendi_score
from ..common.concepts import TRUTH

KINDS = ("right_spread", "right_vendi")
ABOVE_WORLD = "right_vendi_above_world"
RENDERS = 12
"""Renders of each prompt's scene that say how varied the world itself is."""


def pairs_of(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of the places where bool [k] is true: int [m], int [m]."""
    places = np.nonzero(right)[0]
    first, second = np.triu_indices(len(places), 1)
    return places[first], places[second]


def spread(places: np.ndarray, right: np.ndarray) -> float:
    """Variance of place and size of the right pictures, mean over x, y and size, in units of the world's variance.

    places: float [k, 3] in the world's standard deviations. Half the mean square of pairs' differences, which has no
    bias from their number. Of x 0, 1 and 2 with the rest equal: squares 1, 4 and 1, half their mean 1, a third of it.
    """
    first, second = pairs_of(right)
    return float(np.square(places[first] - places[second]).mean() / 2)


def vendi_of_pairs(embeddings: np.ndarray, right: np.ndarray) -> float:
    """Mean Vendi score of every two right pictures, 1 to 2: the score of sets of one size, however many are right."""
    return float(np.mean([vendi_score(embeddings[[i, j]]) for i, j in zip(*pairs_of(right), strict=True)]))


def among_right(run: RunFolder, toy, rounds: Sequence[int], embedder) -> dict[str, dict[str, list[float]]]:
    """{"right_spread", "right_vendi": {"all" | "seen" | "unseen": change since the start after each round, 0 first}}.

    A round is compared with the start over the prompts that have two right pictures in both. right_spread is a standard
    deviation in units of the world's (the square root of the mean variance over prompts). NaN where no prompt has them.
    """
    of_prompt, unseen, _ = _prompts_of(run)
    tables = np.asarray([_by_prompt(run, f"evaluation_{k}", of_prompt, toy, embedder) for k in rounds])
    parts = {"all": np.ones(len(unseen), bool), "seen": ~unseen, "unseen": unseen}
    changes = {part: [_change(tables[0], now, chosen) for now in tables] for part, chosen in parts.items()}
    return {kind: {part: [c[i] for c in found] for part, found in changes.items()} for i, kind in enumerate(KINDS)}


def vendi_of_world(toy, prompts: Sequence[str], embedder, through) -> np.ndarray:
    """`vendi_of_pairs` of renders of each prompt's scene, float [prompts]: the variety of pictures in which everything
    is right, and all that the prompt leaves open is as free as in the world.

    through: gives pictures back as the model's own decoder would show them.
    """
    from ...toybox.world import render

    found = []
    for number, prompt in enumerate(prompts):
        scene = toy.scene_for(prompt)
        pictures = through(np.stack([render(scene, number * RENDERS + i) for i in range(RENDERS)]))
        found.append(vendi_of_pairs(embedder.embed_images(pictures), np.ones(RENDERS, bool)))
    return np.asarray(found)


def above_world(run: RunFolder, toy, rounds: Sequence[int], embedder, through) -> dict[str, dict[str, list[float]]]:
    """{ABOVE_WORLD: {"all" | "seen" | "unseen": Vendi score of two right pictures less the world's, per round}}.

    Means over the prompts that have two right pictures in the round and at the start; NaN where none has. 0: as varied
    as the world; above it pictures that are right differ by what no prompt leaves open, such as half-right colours.
    """
    of_prompt, unseen, prompts = _prompts_of(run)
    world = vendi_of_world(toy, prompts, embedder, through)
    tables = [_by_prompt(run, f"evaluation_{k}", of_prompt, toy, embedder)[:, 1] - world for k in rounds]
    parts = {"all": np.ones(len(unseen), bool), "seen": ~unseen, "unseen": unseen}
    start = ~np.isnan(tables[0])
    return {ABOVE_WORLD: {part: [_mean(now[chosen & start]) for now in tables] for part, chosen in parts.items()}}


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _prompts_of(run: RunFolder) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Places of each prompt's held-out pictures, whether training prompts never name its context, and the prompts."""
    held = run.candidates("evaluation_0")
    prompt_of = np.asarray([c.prompt_index for c in held])
    of_prompt = [np.nonzero(prompt_of == p)[0] for p in np.unique(prompt_of)]
    prompts = [held[of[0]].prompt for of in of_prompt]
    return of_prompt, np.asarray([prompt in run.fact("unseen") for prompt in prompts]), prompts


def _by_prompt(run: RunFolder, name: str, of_prompt: Sequence[np.ndarray], toy, embedder) -> np.ndarray:
    """`spread` and `vendi_of_pairs` of each prompt of a set, [prompts, 2]; NaN with fewer than two right pictures."""
    from ...toybox.oracle import Oracle
    from ...toybox.world import PLACEMENT_SPREAD

    images, right = run.images(name), run.score_array(name, TRUTH) > 0
    places = Oracle().placements(images, [toy.noun] * len(images)) / PLACEMENT_SPREAD
    embeddings, found = embedder.embed_images(images), np.full((len(of_prompt), 2), np.nan)
    for number, of in enumerate(of_prompt):
        if right[of].sum() > 1:
            found[number] = spread(places[of], right[of]), vendi_of_pairs(embeddings[of], right[of])
    return found


def _change(start: np.ndarray, now: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Changes of both measures over the `chosen` prompts that have them in both, from [prompts, 2] each."""
    both = chosen & ~np.isnan(start[:, 0]) & ~np.isnan(now[:, 0])
    if not both.any():
        return float("nan"), float("nan")
    before, after = start[both].mean(0), now[both].mean(0)
    return float(np.sqrt(after[0]) - np.sqrt(before[0])), float(after[1] - before[1])
