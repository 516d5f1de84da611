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
    for an empty identifier or class noun, no reference photo, or masks that do not fit the photos.
    """

    identifier: str
    class_noun: str
    references: np.ndarray
    held_out: np.ndarray | None = None
    masks: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, value in (("identifier", self.identifier), ("class_noun", self.class_noun)):
            if not value.strip():
                raise UserError(
                    f"{name} is {value!r}: it must be a word, such as 'sks' (identifier) or 'robot' (class noun)."
                )
            # Normalise spaces as in prompts; else the subject would not be found in them.
            object.__setattr__(self, name, " ".join(value.split()))
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

    def without_identifier(self, prompt: str) -> str:
        """The prompt without the identifier, class noun kept, for text encoders that do not know the identifier."""
        return " ".join(re.sub(rf"(?<!\w){re.escape(self.identifier)}(?!\w)", " ", prompt).split())
