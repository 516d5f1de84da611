"""Rewards that are wrong on purpose: an honest scorer of the toybox plus a measure that is not the task's.

score = honest + strength * spread(honest) * (feature - mean) / spread(feature), where mean and spreads (standard
deviation within prompts) are those of the first round's candidates. So a fault of strength 1 says as much about which
of two candidates is better as the honest score does, and one of strength 2 twice as much. The sum is cut to a cosine's
range, -1 to 1: the pair rule refuses others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...dpo_core.protocols import Scorer
from ...dpo_core.statistics import spread_within
from ...metrics.backgrounds import BackgroundScorer
from ...toybox.concepts import ToyConcept
from ...toybox.oracle import Oracle

Feature = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""Images uint8 [n, H, W, 3] and prompts -> float64 [n]."""
HAT = "blue"
"""The one colour of hat that the fault `hat` pays for."""


@dataclass(frozen=True)
class Fault:
    """What a wrong reward pays for. `features`: by the axis whose reward is wrong. `shared`: the judge has it too."""

    about: str
    features: tuple[tuple[str, str], ...]
    """(axis, name of a feature), one or two."""
    shared: bool = False
    judged: bool = True
    """Whether there is a judge at all."""


FAULTS = {
    "place": Fault("fidelity pays for the photos' background", (("fidelity", "place"),)),
    "saturation": Fault("alignment pays for saturated colours", (("alignment", "saturation"),)),
    "size": Fault("fidelity pays for a large subject", (("fidelity", "size"),)),
    "hat": Fault(f"alignment pays for a {HAT} hat, whatever the prompt", (("alignment", "hat"),)),
    "noise": Fault("noise on both axes", (("fidelity", "noise"), ("alignment", "noise"))),
    "both": Fault(
        "fidelity pays for the photos' background, alignment for saturated colours",
        (("fidelity", "place"), ("alignment", "saturation")),
    ),
    "shared": Fault(
        "as `both`, and the judge shares both faults",
        (("fidelity", "place"), ("alignment", "saturation")),
        shared=True,
    ),
    "unjudged": Fault(
        "as `both`, without a judge",
        (("fidelity", "place"), ("alignment", "saturation")),
        judged=False,
    ),
}
STRENGTHS = (1.0, 2.0)


def features(toy: ToyConcept, reward_embedder) -> dict[str, Feature]:
    """The measures that faults pay for, by name.

    place: likeness to the photos without their subject, by the reward's embedder. saturation: mean over pixels of the
    largest minus the smallest channel. size: the oracle's estimate of the subject's scale, in pixels. hat: 1 where the
    oracle reads a hat of the colour HAT, else 0. noise: a standard normal number drawn from the image's bytes, so that
    an image always has the same.
    """
    oracle, noun = Oracle(), toy.noun
    place = BackgroundScorer(reward_embedder, toy.references, toy.masks)

    def saturation(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        return (images.max(-1).astype(np.float64) - images.min(-1)).mean((1, 2))

    def size(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        return oracle.placements(images, [noun] * len(images))[:, 2]

    def hat(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        return np.asarray([float(r.hat == HAT) for r in oracle.read(images, [noun] * len(images))])

    def noise(images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        marks = (hashlib.sha256(image.tobytes()).digest()[:8] for image in images)
        return np.asarray([np.random.default_rng(int.from_bytes(m, "little")).standard_normal() for m in marks])

    return {"place": place.score, "saturation": saturation, "size": size, "hat": hat, "noise": noise}


class Faulty:
    """An honest scorer with a fault; a Scorer of the same name. See the module for the formula.

    images, prompts, prompt_of: those that mean and spreads are measured on; prompt_of int [n].
    """

    def __init__(
        self, honest: Scorer, feature: Feature, strength: float, mark: str,
        images: np.ndarray, prompts: Sequence[str], prompt_of: np.ndarray,
    ) -> None:  # fmt: skip
        values = feature(images, prompts)
        spread = spread_within(values, prompt_of)
        self.name, self._honest, self._feature, self._mean = honest.name, honest, feature, float(values.mean())
        if spread == 0:
            raise ValueError(f"the feature of {mark} is equal in all candidates of each prompt: it cannot mislead")
        self.unit = strength * spread_within(honest.score(images, prompts), prompt_of) / spread
        self.fingerprint = hashlib.sha256(f"{honest.fingerprint}|{mark}|{self.unit}|{self._mean}".encode()).hexdigest()

    def score(self, images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        added = self.unit * (self._feature(images, prompts) - self._mean)
        return np.clip(self._honest.score(images, prompts) + added, -1.0, 1.0)
