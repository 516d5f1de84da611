"""Records of candidates and pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Candidate:
    """One image: position in its set, prompt, noise seed, and where its latent is stored (chunk, row).

    strength: of the user's LoRA, as a multiple of the one that the model was loaded with; 0 is the base model. photo:
    number of the reference photo that this is, in place of a sampled image; None for sampled ones. earlier: set and
    position of the candidate of an earlier round that this is; None for those of this round.
    """

    position: int
    prompt_index: int
    prompt: str
    seed: int
    chunk: int
    row: int
    strength: float = 1.0
    photo: int | None = None
    earlier: tuple[str, int] | None = None

    @property
    def sampled(self) -> bool:
        """Whether it is sampled for this set: neither a reference photo nor a candidate of an earlier round."""
        return self.photo is None and self.earlier is None


@dataclass(frozen=True)
class Pair:
    """Indices of two candidates of one prompt, and the improvement from loser to winner in standard deviations."""

    winner: int
    loser: int
    d_fidelity: float
    d_alignment: float

    @property
    def angle(self) -> float:
        return float(np.degrees(np.arctan2(self.d_alignment, self.d_fidelity)))

    @property
    def length(self) -> float:
        return float(np.hypot(self.d_fidelity, self.d_alignment))

    @property
    def gap(self) -> float:
        """Signed improvement along the direction of equal gain, (d_fidelity + d_alignment) / sqrt 2.

        Equals the length at 45 degrees.
        """
        return (self.d_fidelity + self.d_alignment) / 2**0.5
