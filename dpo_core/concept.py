"""The concept: the subject that a model was personalized to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .errors import UserError


@dataclass(frozen=True)
class Concept:
    """Identifier ("sks"), class noun ("robot") and reference photos uint8 [r, H, W, 3].

    `held_out`: further photos [h, H, W, 3] that training never sees, for guards, or None. `masks`: uint8 [r, H, W], 255
    where a reference photo shows the subject; with them, fidelity is measured on the subject alone. Raises UserError
    for an empty identifier or class noun, an identifier that is a word of the class noun, no reference photo, or masks
    that do not fit the photos.
    """

    identifier: str
    class_noun: str
    references: np.ndarray
    held_out: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, value in (("identifier", self.identifier), ("class_noun", self.class_noun)):
            if not isinstance(value, str) or not value.strip():
                raise UserError(
                    f"{name} is {value!r}: it must be a word, such as 'sks' (identifier) or 'robot' (class noun)."
                )
            # Normalise spaces as in prompts; else the subject would not be found in them.
            object.__setattr__(self, name, " ".join(value.split()))
        if f" {self.identifier} ".casefold() in f" {self.class_noun} ".casefold():
            raise UserError(
                f"identifier {self.identifier!r} is a word of class_noun {self.class_noun!r}, so prompts cannot tell "
                "the two apart. Give the token that training used as identifier, such as 'sks', and the kind of "
                f"thing as class noun, such as {self.class_noun.split()[-1]!r}."
            )
        if self.references.ndim != 4 or len(self.references) == 0:
            raise UserError(
                f"the concept {self.subject!r} has no reference pictures. Give at least one, so that fidelity can be "
                "measured; three to five are usual."
            )
        if self.masks is not None and self.masks.shape != self.references.shape[:3]:
            raise UserError(
                f"the masks have shape {list(self.masks.shape)}, the reference pictures "
                f"{list(self.references.shape[:3])}: give one mask per picture, of the same size."
            )

    @property
    def subject(self) -> str:
        """The words by which prompts name the concept, e.g. "sks robot"."""
        return f"{self.identifier} {self.class_noun}"

    @property
    def caption(self) -> str:
        """The prompt of a reference photo, of which no more is known, e.g. "a photo of a sks robot"."""
        return f"a photo of a {self.subject}"

    def without_identifier(self, prompt: str) -> str:
        """The prompt without the identifier, class noun kept, for text encoders that do not know the identifier."""
        return " ".join(re.sub(rf"(?<!\w){re.escape(self.identifier)}(?!\w)", " ", prompt).split())

    @property
    def different_photos(self) -> int:
        """How many of the reference photos differ from each other."""
        return len({photo.tobytes() for photo in self.references})


NO_SCALE = "one reference photo: fidelity has no scale, as nothing says how alike other photos of the subject are"
"""Said where fidelity is compared with that of photos, and there is one photo only."""


def doubts(concept: Concept) -> list[str]:
    """Sentences on what is allowed, but unlikely to be meant."""
    said = []
    if concept.different_photos == 1 and concept.held_out is None:
        said.append(f"{NO_SCALE}. Three to five photos are usual")
    if f" {concept.class_noun} ".casefold() in f" {concept.identifier} ".casefold():
        said.append(
            f"identifier {concept.identifier!r} holds the class noun, so prompts name the subject {concept.subject!r}: "
            "is that how it was trained?"
        )
    elif len(concept.identifier) > 2 and concept.identifier.casefold() in concept.class_noun.casefold():
        said.append(
            f"identifier {concept.identifier!r} is a part of the class noun {concept.class_noun!r}, so the text "
            "encoder may read the one for the other: is it the token of your training?"
        )
    if concept.held_out is not None:
        known = {photo.tobytes() for photo in concept.references}
        if twice := sum(photo.tobytes() in known for photo in concept.held_out):
            said.append(
                f"{twice} of {len(concept.held_out)} held-out photos are reference photos too, so the copy-paste guard "
                "cannot tell copies from likeness. Hold out photos that training never saw"
            )
    return said
