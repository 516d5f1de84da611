"""Refuse pictures and scores that give no preference, instead of making pairs from rounding noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UserError
from ..records import Candidate
from ..statistics import ROUNDING


class NothingToCompare(UserError):
    """The candidates cannot be compared.

    In the first round this is an error; in a later one the loop stops with the rounds that it has.
    """


FLAT_LEVELS = 8
"""A pixel counts as the picture's one colour when each channel is within this many levels (of 255) of the median."""
FLAT_SHARE = 0.99
"""Share (0..1) of pixels of one colour from which a picture counts as flat."""
CHECK_AFTER = 4
"""Number of pictures after which an incomplete set is checked."""


def flat(images: np.ndarray) -> np.ndarray:
    """Which pictures are nearly all of one colour: uint8 [n, H, W, 3] -> bool [n]."""
    pixels = images.reshape(len(images), -1, images.shape[-1]).astype(np.int16)
    near = np.abs(pixels - np.median(pixels, axis=1, keepdims=True)).max(axis=2) <= FLAT_LEVELS
    return near.mean(axis=1) >= FLAT_SHARE


def check_pixels(good: bool, what: str = "the VAE") -> None:
    """Raises UserError unless `good`: whether all pixels of a decoded batch are finite, before they become uint8."""
    if not good:
        raise UserError(
            f"{what} gives NaN or infinity for the pixels, which would be drawn as black. Usual causes: an overflow of "
            "the VAE in half precision (SDXL's own VAE does so in fp16), or a VAE file that is damaged or of another "
            "model. Load the VAE in fp32 or bf16, or use the VAE of this model, such as sdxl-vae-fp16-fix for SDXL."
        )


def check_first(images: np.ndarray) -> None:
    """Raises UserError when every picture of a run's first batch (uint8 [n, H, W, 3]) has one colour in all pixels."""
    rows = images.reshape(len(images), -1, images.shape[-1])
    if (rows == rows[:, :1]).all():
        colour = ", ".join(map(str, rows[0, 0].tolist()))
        raise UserError(
            f"all pixels of the first {len(images)} pictures have one colour (the first: red, green, blue {colour}), "
            "so the model draws nothing. Usual causes: a VAE that does not belong to the model, a VAE or model that "
            "overflows in half precision, or a sampler or scheduler that does not suit the model. Load the VAE in fp32 "
            "or use the model's own VAE, and draw one picture by hand before a run."
        )


class PictureCheck:
    """Checks the pictures of a set as they are sampled.

    `flat`: positions of the pictures that are nearly all of one colour.
    """

    def __init__(self) -> None:
        self.flat: list[int] = []
        self._seen: dict[int, list[bytes]] = {}

    @property
    def seen(self) -> int:
        """Number of pictures added so far."""
        return sum(map(len, self._seen.values()))

    def look(self, members: Sequence[Candidate], images: np.ndarray) -> None:
        """Add a batch: candidates and their pictures, uint8 [n, H, W, 3]."""
        for member, image, is_flat in zip(members, images, flat(images), strict=True):
            self._seen.setdefault(member.prompt_index, []).append(image.tobytes())
            if is_flat:
                self.flat.append(member.position)

    def refuse(self) -> None:
        """Raises NothingToCompare when most pictures are flat, or all pictures of each prompt are identical."""
        if 2 * len(self.flat) > self.seen:
            raise NothingToCompare(
                f"{len(self.flat)} of {self.seen} pictures are nearly all of one colour, so there is nothing "
                "to compare. Look at them. Usual causes: a VAE that does not belong to the model, an overflow in half "
                "precision, a sampler or scheduler that does not suit the model, or guidance that is far too high."
            )
        several = [pictures for pictures in self._seen.values() if len(pictures) > 1]
        if several and all(len(set(pictures)) == 1 for pictures in several):
            raise NothingToCompare(
                f"the pictures of each prompt are identical, though their seeds differ ({self.seen} pictures), so "
                "there is nothing to compare. Look for a node or patch that fixes the noise or caches the model's "
                "results."
            )


def check_scores(scores: np.ndarray, prompt_of: np.ndarray, axis: str, names: Sequence[str]) -> None:
    """Raises NothingToCompare when no prompt has scores that differ by more than rounding.

    scores: float [n] of one axis. prompt_of: int [n]. names: the scorers, for the message. Prompts with a single
    candidate are ignored.
    """
    groups = [scores[prompt_of == prompt] for prompt in np.unique(prompt_of)]
    spreads = [float(np.ptp(group)) for group in groups if len(group) > 1]
    if spreads and max(spreads) <= ROUNDING * float(np.abs(scores).max()):
        raise NothingToCompare(
            f"the {axis} scores of each prompt's candidates are all the same (about {float(scores[0]):.4g}, by "
            f"{', '.join(names)}), so no candidate is better than another: they differ by {max(spreads):.1g} at most, "
            "which is rounding. Look at the pictures. If they differ, this "
            "scorer does not see the difference: use another scorer, and check that photos and prompts are of the "
            "subject."
        )
