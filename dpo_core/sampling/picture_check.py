"""Pictures and scores from which nothing can be learned: said at once, in place of pairs made of rounding noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from ..records import Candidate


class NothingToCompare(UserError):
    """Candidates that cannot be compared: a first round is refused by it, a later one ends the run with what it has."""


FLAT_LEVELS = 8
"""A pixel is of a picture's one colour when each channel lies within so many levels (of 255) of the picture's median.
"""
FLAT_SHARE = 0.99
"""Of a picture's pixels that are of one colour, from which on it counts as flat."""
ENOUGH = 4
"""Pictures after which a set is judged before it is whole."""
SAME = 1e-5
"""Scores of a prompt that lie closer than this share of the largest are equal but for rounding."""


def flat(images: np.ndarray) -> np.ndarray:
    """Which of the pictures uint8 [n, H, W, 3] are nearly all of one colour: bool [n]."""
    pixels = images.reshape(len(images), -1, images.shape[-1]).astype(np.int16)
    near = np.abs(pixels - np.median(pixels, axis=1, keepdims=True)).max(axis=2) <= FLAT_LEVELS
    return near.mean(axis=1) >= FLAT_SHARE


class PictureCheck:
    """Looks at a set's pictures as they are drawn. `flat`: positions of those that are nearly all of one colour."""

    def __init__(self) -> None:
        self.flat: list[int] = []
        self._seen: dict[int, list[bytes]] = {}

    @property
    def seen(self) -> int:
        return sum(map(len, self._seen.values()))

    def look(self, members: Sequence[Candidate], images: np.ndarray) -> None:
        """Take in a batch: members and their pictures uint8 [n, H, W, 3]."""
        for member, image, is_flat in zip(members, images, flat(images), strict=True):
            self._seen.setdefault(member.prompt_index, []).append(image.tobytes())
            if is_flat:
                self.flat.append(member.position)

    def refuse(self) -> None:
        """Raises NothingToCompare where most pictures are flat, or where each prompt's pictures are all the same one."""
        if 2 * len(self.flat) > self.seen:
            raise NothingToCompare(
                f"{len(self.flat)} of {self.seen} pictures are nearly all of one colour: the model draws nothing to compare. Look at "
                "them. Usual causes are a VAE that does not belong to the model, half precision that overflows, a sampler or "
                "scheduler that the model does not take, or guidance that is far too high."
            )
        several = [pictures for pictures in self._seen.values() if len(pictures) > 1]
        if several and all(len(set(pictures)) == 1 for pictures in several):
            raise NothingToCompare(
                f"the pictures of each prompt are all the same one, though their seeds differ ({self.seen} pictures): there is "
                "nothing to choose from. Look for a node or patch that fixes the noise or caches the model's results."
            )


def check_scores(scores: np.ndarray, prompt_of: np.ndarray, axis: str, names: Sequence[str]) -> None:
    """scores: float [n] of one axis; prompt_of: int [n].

    Raises NothingToCompare where no prompt with several candidates has scores that differ by more than rounding: pairs
    would be noise.
    """
    groups = [scores[prompt_of == prompt] for prompt in np.unique(prompt_of)]
    spreads = [float(np.ptp(group)) for group in groups if len(group) > 1]
    if spreads and max(spreads) <= SAME * float(np.abs(scores).max()):
        raise NothingToCompare(
            f"the {axis} scores of each prompt's candidates are all the same (about {float(scores[0]):.4g}, by {', '.join(names)}): "
            "nothing tells better from worse. Look at the pictures; if they differ, this scorer does not see the difference: use "
            "another one, and check that the photos and prompts are those of the subject."
        )
