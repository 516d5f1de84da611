"""Prompts of the toybox world, as templates with {identifier} and {class_noun}."""

from __future__ import annotations

import numpy as np

from .captions import BACKGROUND_PHRASES, hat_phrase
from .concepts import ToyConcept
from .world import BACKGROUNDS, HAT_COLOURS

WORDINGS = ("a photo of", "a picture of", "an image of")
# Number of prompts of each background: with a bare head (each in another wording), and with a hat.
BARE, HATS = 2, 3
# Number of backgrounds whose bare-head prompts are training prompts; on the others they are held out.
BARE_TRAINED = 6


def template(background: str, hat: str | None = None, wording: str = WORDINGS[0]) -> str:
    """E.g. "a photo of a {identifier} {class_noun} wearing a red hat in snow"."""
    worn = f" {hat_phrase(hat)}" if hat else ""
    return f"{wording} a {{identifier}} {{class_noun}}{worn} {BACKGROUND_PHRASES[background]}"


def prompt_templates() -> list[str]:
    """Every background with a bare head and with every hat, in every wording."""
    return [template(b, hat, wording) for b in BACKGROUNDS for hat in (None, *HAT_COLOURS) for wording in WORDINGS]


def train_and_held_out(concept: ToyConcept) -> tuple[list[str], list[str]]:
    """30 training and 20 held-out templates of a concept, always the same; 40 % of either ask for a bare head.

    Every background is in both halves, and so are the bare head and every hat that is not of the body's colour (a hat
    of the body's colour could not be recognised and is left out). No scene is in both halves, in any wording: for six
    backgrounds the bare head and one hat are training prompts and two hats held out; for four, three hats are training
    prompts and the bare head is held out.
    """
    rng = np.random.default_rng([3020, concept.seed])
    hats = [HAT_COLOURS[i] for i in rng.permutation(len(HAT_COLOURS)) if HAT_COLOURS[i] != concept.body]
    train: list[str] = []
    held_out: list[str] = []
    for turn, i in enumerate(rng.permutation(len(BACKGROUNDS))):
        background = BACKGROUNDS[i]
        bare = [template(background, None, wording) for wording in WORDINGS[:BARE]]
        # Rotate the hats, so that each is trained on and held out about equally often.
        worn = [template(background, hats[(turn + j) % len(hats)]) for j in range(HATS)]
        if turn < BARE_TRAINED:
            train += [*bare, worn[0]]
            held_out += worn[1:]
        else:
            train += worn
            held_out += bare
    return train, held_out


def with_unseen_contexts(concept: ToyConcept, count: int) -> tuple[list[str], list[str], list[str]]:
    """24 training templates, 16 held-out ones of the same backgrounds, and 6 of unseen backgrounds (for `count` 2).

    Training never names the unseen backgrounds. The templates are those of `train_and_held_out`. The photos' own
    background is never among the unseen ones.
    """
    rng = np.random.default_rng([3021, concept.seed])
    absent = [b for b in (BACKGROUNDS[i] for i in rng.permutation(len(BACKGROUNDS))) if b != concept.background][:count]

    def split_off(templates: list[str], background: str) -> list[str]:
        phrase = BACKGROUND_PHRASES[background]
        return [t for t in templates if t.endswith(f" {phrase}")]

    train, held_out = train_and_held_out(concept)
    unseen = [t for b in absent for t in (*split_off(held_out, b)[:2], *split_off(train, b)[:1])]
    gone = {t for b in absent for t in (*split_off(held_out, b), *split_off(train, b))}
    return [t for t in train if t not in gone], [t for t in held_out if t not in gone], unseen
