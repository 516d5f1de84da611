"""Concepts of the toybox world, generated from an integer."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..dpo_core.concept import Concept
from ..dpo_core.errors import UserError
from .captions import BACKGROUND_PHRASES, IDENTIFIERS, hat_phrase
from .world import BACKGROUNDS, CLASSES, COLOURS, HAT_COLOURS, Scene, render, subject_mask

PHOTOS = 5
_HAT = re.compile(hat_phrase(r"(\S+)"))


@dataclass(frozen=True, eq=False)
class ToyConcept:
    """A subject of the toybox world.

    `references` uint8 [5, 64, 64, 3]: photos on the one `background`. `held_out`, same shape: photos on five other
    backgrounds, which training never sees. No subject wears a hat in either. `masks` uint8 [5, 64, 64]: 255 where a
    reference shows the subject.
    """

    seed: int
    identifier: str
    noun: str
    body: str
    belly: str
    background: str
    references: np.ndarray
    held_out: np.ndarray
    masks: np.ndarray

    def describe(self) -> str:
        """E.g. "sks: a red robot with a cyan belly, photographed on brick"."""
        return (
            f"{self.identifier}: a {self.body} {self.noun} with a {self.belly} belly, photographed on {self.background}"
        )

    def to_concept(self) -> Concept:
        return Concept(self.identifier, self.noun, self.references, self.held_out, self.masks)

    def scene_for(self, prompt: str) -> Scene:
        """The scene that a prompt asks for: its background and hat, with this concept's noun and colours.

        Raises UserError for a prompt that names no toybox background, or several, or a hat colour that does not exist.
        """
        text = " ".join(prompt.lower().split())
        named = [name for name, phrase in BACKGROUND_PHRASES.items() if re.search(rf"\b{phrase}\b", text)]
        if len(named) != 1:
            raise UserError(
                f"prompt {prompt!r} names {len(named) or 'no'} toybox background{'s' if named else ''}; "
                f"name one, by one of these phrases: {', '.join(BACKGROUND_PHRASES.values())}."
            )
        hat = _HAT.search(text)
        if hat and hat[1] not in HAT_COLOURS:
            raise UserError(
                f"prompt {prompt!r} asks for a {hat[1]} hat, which the toybox does not have; choose one of "
                f"{', '.join(HAT_COLOURS)}."
            )
        return Scene(self.noun, self.body, self.belly, named[0], hat[1] if hat else None)


@lru_cache(maxsize=1)
def _appearances() -> list[tuple[str, str, str]]:
    """Every (noun, body, belly) once, in a fixed shuffled order.

    Nouns take turns, and colours occur about equally often.
    """
    rng = np.random.default_rng(20505)
    pairs = list(itertools.permutations(COLOURS, 2))
    left = {noun: [pairs[i] for i in rng.permutation(len(pairs))] for noun in CLASSES}
    bodies, bellies, order = Counter(), Counter(), []
    for _ in pairs:
        for noun in CLASSES:
            body, belly = min(left[noun], key=lambda pair: (bodies[pair[0]], bellies[pair[1]]))
            left[noun].remove((body, belly))
            bodies[body] += 1
            bellies[belly] += 1
            order.append((noun, body, belly))
    return order


def concept_from_seed(n: int) -> ToyConcept:
    """Concept number `n` >= 0: the same number always gives the same appearance, identifier and photos.

    The first 90 differ in (noun, body, belly). Ten consecutive concepts from a multiple of ten on have ten backgrounds;
    eight consecutive ones have eight identifiers. From 90 on, appearances repeat with other photos. Raises UserError
    for a negative number.
    """
    if n < 0:
        raise UserError(f"concept {n} does not exist: concepts are numbered from 0.")
    appearances = _appearances()
    noun, body, belly = appearances[n % len(appearances)]
    turn = np.random.default_rng([20505, n // len(BACKGROUNDS)]).permutation(len(BACKGROUNDS))
    background = BACKGROUNDS[turn[n % len(BACKGROUNDS)]]
    shots = _shots(n, Scene(noun, body, belly, background))
    photos, masks = _photos(shots[:PHOTOS])
    identifier = IDENTIFIERS[n % len(IDENTIFIERS)]
    return ToyConcept(n, identifier, noun, body, belly, background, photos, _photos(shots[PHOTOS:])[0], masks)


def in_several_places(toy: ToyConcept) -> ToyConcept:
    """The same subject with the roles of its photos exchanged.

    `references` and `masks` are on five backgrounds, other than `background`; `held_out` are those on `background`.
    """
    scene = Scene(toy.noun, toy.body, toy.belly, toy.background)
    photos, masks = _photos(_shots(toy.seed, scene)[PHOTOS:])
    return replace(toy, references=photos, held_out=toy.references, masks=masks)


def _shots(n: int, scene: Scene) -> list[tuple[Scene, int]]:
    """Scene and seed of a concept's photos: five on the scene's own background, five on others."""
    rng = np.random.default_rng([505, n])
    others = rng.permutation([b for b in BACKGROUNDS if b != scene.background])[:PHOTOS]
    places = (*[scene.background] * PHOTOS, *others)
    return [(scene.with_(background=str(b)), int(rng.integers(2**31))) for b in places]


def _photos(shots: list[tuple[Scene, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Photos uint8 [n, 64, 64, 3] and the masks of their subject uint8 [n, 64, 64]."""
    return np.stack([render(*shot) for shot in shots]), np.stack([subject_mask(*shot) for shot in shots])
