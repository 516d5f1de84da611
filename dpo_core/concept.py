"""The subject that a model was personalized to."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .errors import UserError


@dataclass(frozen=True)
class Concept:
    """Identifier token ("sks"), class noun ("robot") and reference pictures uint8 [r, H, W, 3].

    `held_out`: further photos [h, H, W, 3] that training never sees, for guards; None where there are none.
    Raises UserError for an empty identifier or class noun, or no reference picture.
    """

    identifier: str
    class_noun: str
    references: np.ndarray
    held_out: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, value in (("identifier", self.identifier), ("class_noun", self.class_noun)):
            if not value.strip():
                raise UserError(f"{name} is {value!r}: it must be a word, such as 'sks' (identifier) or 'robot' (class noun).")
            # One spacing everywhere, as prompts have it; else the subject would not be found in them.
            object.__setattr__(self, name, " ".join(value.split()))
        if self.references.ndim != 4 or len(self.references) == 0:
            raise UserError(
                f"the concept {self.subject!r} has no reference pictures; fidelity needs at least one, three to five are usual."
            )

    @property
    def subject(self) -> str:
        """What a prompt calls the concept, e.g. "sks robot"."""
        return f"{self.identifier} {self.class_noun}"

    def without_identifier(self, prompt: str) -> str:
        """The prompt without the identifier, class noun kept: a scorer's text tower does not know the identifier."""
        return " ".join(re.sub(rf"(?<!\w){re.escape(self.identifier)}(?!\w)", " ", prompt).split())
